"""The peer of startup.py, and what many begin with: Flask around transformers' pipeline. Arguments: MODEL_DIR PORT."""

import io
import sys

import flask
import soundfile
import transformers


def main() -> None:
    folder, port = sys.argv[1:]
    recognise = transformers.pipeline("automatic-speech-recognition", model=folder, chunk_length_s=30)
    app = flask.Flask(__name__)

    @app.post("/v1/audio/transcriptions")
    def transcribe() -> str:
        samples, rate = soundfile.read(io.BytesIO(flask.request.files["file"].read()), dtype="float32")
        text: str = recognise({"raw": samples, "sampling_rate": rate}, batch_size=8)["text"]
        return text

    @app.get("/ready")
    def ready() -> str:
        return "ready"

    app.run(port=int(port))


if __name__ == "__main__":
    main()
