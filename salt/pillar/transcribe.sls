#!yaml
# The one place for every path, name, port, limit and the model. States read it, Salt writes it unchanged to
# config/transcribe.json, and the programs read nothing else. bake.toml's [pillar] overrides it.
transcribe:
  root: /opt/transcribe
  user: transcribe
  group: transcribe
  host: 127.0.0.1
  port: 8000
  model:
    id: KBLab/kb-whisper-small
    revision: main  # a branch or tag here; the launcher pins it to a commit before anything is built
    endpoint: https://huggingface.co
    language: sv
    task: transcribe
  model_names:  # other names that clients send for this one model; the second list's also tell speakers apart
    transcribe:
      - whisper-1
      - gpt-transcribe
      - gpt-live-transcribe
      - gpt-realtime-whisper
      - gpt-4o-transcribe
      - gpt-4o-mini-transcribe
      - gpt-4o-mini-transcribe-2025-03-20
      - gpt-4o-mini-transcribe-2025-12-15
    speakers:
      - gpt-4o-transcribe-diarize
  device: auto  # auto | cuda | cpu
  dtype: auto  # auto | float32 | float16 | bfloat16 | int8
  batch:
    max_chunks: auto  # or a number: 16 on a processor; on a GPU measured when the model is warmed
  speakers:
    model: resemblyzer==0.1.4  # a package of the package index with the weights, or OWNER/NAME of the hub; '' for none
    revision: 8f12eb2f1a9982d32e8db7856de754709b59c93a77bcf0ff536584b619a9dd1f  # SHA-256 of its wheel, or the commit
  limits:
    upload_bytes: 1073741824
    audio_seconds: 14400
    queue_jobs: 200
    queue_audio_seconds: 72000
    decode_seconds: 600
    decode_bytes: 536870912  # memory of one decoder process
    key_jobs: 100  # unfinished jobs of one API key
    waiting_requests: 64  # HTTP requests that wait for a transcript at the same time
  retention:
    results_hours: 24
  auth:
    keys_file: ''
    temporary_keys: /run/transcribe-keys  # a folder of root's: keys by which the machine checks itself, for minutes
  cors:
    origins: []  # none, or the origins of pages on other hosts
  callbacks:
    enabled: false
    secret_file: ''  # signs them
  fleet:
    queue: ''  # the name of its queues in SQS; none: the machine works for itself alone
    bucket: ''
    prefix: transcribe-fleet
    region: ''
    endpoint_url: ''  # instead of AWS's own addresses
    encryption: ''  # that writes ask S3 for: AES256, aws:kms, aws:kms:dsse; none: the bucket's default
    kms_key: ''
    user: transcribe-feeder  # the only process that talks to AWS
    socket: /run/transcribe-feeder/feeder.sock  # where the API asks it
    owner: ''  # of recordings that lie in no folder of in/
    hold_seconds: 120  # of a message, without a sign of life
    leave_seconds: 60  # to finish what fits, when the machine is to end
    wait_minutes: 0  # that work may wait: CloudWatch is told how much does; 0: it is not
    idle_minutes: 0  # without work, and a machine of an Auto Scaling group ends itself; 0: never
    price: 0.0  # US dollars an hour; 0: not known
  install:
    python: python3
    lock: auto  # auto | cpu | cuda
    remove_toolkits: []  # of the source image's CUDA toolkits in /usr/local, such as cuda-12.8; torch has its own
  verify:
    clip: verify-sv.flac  # in service/clips, as is verify.flac, in English; bake.toml may name another
    language: sv  # the model's
    reference: verify-sv.txt
    max_word_error_rate: 0.6  # a synthesizer's voice; 0.3 for verify.flac, a reader's
