// What a decoder's step does between its matrix products, each as one kernel: torch starts dozens of small ones for it,
// and a GPU takes longer to start them than to run them.
//
// float16 in memory, float32 in between. Every kernel works for any GPU from sm_70 on; it is compiled on the machine, for
// its own GPU (compiler.py). No header is needed, so that none must be there. [a, b] are arrays of a times b, b side by side.
//
// Rows are those of a batch, from the `first` on, a number that lies on the device, so that the same recorded step serves
// any: what is handed in as [rows] begins with that row, what is the batch's has `capacity` of them, and those that it
// has not are left out.

typedef unsigned short half_t;
typedef long long int64;

#define HEAD 64           // numbers of an attention head, in every Whisper
#define LANES 8           // threads that share a key: 8 numbers each, which is the widest load
#define FULL 0xffffffffu  // all threads of a warp
#define LOWEST -3.0e38f

__device__ __forceinline__ float to_float(half_t value) {
  float result;
  asm("cvt.f32.f16 %0, %1;" : "=f"(result) : "h"(value));
  return result;
}

__device__ __forceinline__ half_t to_half(float value) {
  half_t result;
  asm("cvt.rn.f16.f32 %0, %1;" : "=h"(result) : "f"(value));
  return result;
}

// Two numbers that lie in one word.
__device__ __forceinline__ void unpack(unsigned word, float *numbers) {
  numbers[0] = to_float((half_t)(word & 0xffffu));
  numbers[1] = to_float((half_t)(word >> 16));
}

// Eight numbers from an address that is a multiple of 16.
__device__ __forceinline__ void unpack(uint4 words, float *numbers) {
  unpack(words.x, numbers);
  unpack(words.y, numbers + 2);
  unpack(words.z, numbers + 4);
  unpack(words.w, numbers + 6);
}

// Eight signed bytes. A byte with its sign turned round is the end of a float that is 2^23 + 128 too large, which takes no
// conversion: older GPUs do few of those.
__device__ __forceinline__ void unpack(uint2 words, float *numbers) {
#pragma unroll
  for (int n = 0; n < 8; n++) {
    const unsigned word = (n < 4 ? words.x : words.y) ^ 0x80808080u;
    numbers[n] = __uint_as_float(__byte_perm(word, 0x4b000000u, 0x7540 + n % 4)) - 8388736.0f;
  }
}

// The sum over a block of up to 32 warps, for all of its threads; `scratch` has a place for each warp.
__device__ __forceinline__ float block_sum(float value, float *scratch) {
  const int warps = blockDim.x / 32;
  for (int other = 16; other; other /= 2) value += __shfl_xor_sync(FULL, value, other);
  __syncthreads();
  if (threadIdx.x % 32 == 0) scratch[threadIdx.x / 32] = value;
  __syncthreads();
  value = threadIdx.x % 32 < warps ? scratch[threadIdx.x % 32] : 0.0f;
  for (int other = 16; other; other /= 2) value += __shfl_xor_sync(FULL, value, other);
  return value;
}

// x [rows, width] becomes the embeddings of the rows' tokens, at their places. A block for each row.
extern "C" __global__ void embed(const int64 *tokens, const int64 *places, const half_t *embeddings,
                                 const half_t *positions, half_t *x, const int *first, int capacity, int width,
                                 int context) {
  const int64 row = blockIdx.x + *first;
  if (row >= capacity) return;
  const half_t *word = embeddings + tokens[row] * width, *position = positions + min(places[row], (int64)(context - 1)) * width;
  for (int n = threadIdx.x; n < width; n += blockDim.x)
    x[(int64)blockIdx.x * width + n] = to_half(to_float(word[n]) + to_float(position[n]));
}

#define NORM_THREADS 256  // at most: a thread holds 8 numbers of a row, which are up to 2048

// Adds `more` to x, both [rows, width]; `normed` becomes the norm of the sum. One block a row, with a thread for 8 numbers
// and some for none; the width is a multiple of 8.
extern "C" __global__ void __launch_bounds__(NORM_THREADS)
    add_norm(half_t *x, const half_t *more, const half_t *weight, const half_t *bias, half_t *normed, int width) {
  __shared__ float scratch[NORM_THREADS / 32];
  const int at = threadIdx.x * 8;
  const bool used = at < width;
  const int64 place = (int64)blockIdx.x * width + at;
  float held[8] = {}, other[8], scales[8], shifts[8], sum = 0.0f;
  if (used) {
    unpack(*(const uint4 *)(x + place), held);
    unpack(*(const uint4 *)(more + place), other);
    unpack(*(const uint4 *)(weight + at), scales);
    unpack(*(const uint4 *)(bias + at), shifts);
    uint4 words;
    half_t *sums = (half_t *)&words;
#pragma unroll
    for (int n = 0; n < 8; n++) {
      sums[n] = to_half(held[n] + other[n]);
      held[n] = to_float(sums[n]);
      sum += held[n];
    }
    *(uint4 *)(x + place) = words;
  }
  const float mean = block_sum(sum, scratch) / width;
  sum = 0.0f;
#pragma unroll
  for (int n = 0; n < 8; n++) sum += used ? (held[n] - mean) * (held[n] - mean) : 0.0f;
  const float scale = rsqrtf(block_sum(sum, scratch) / width + 1e-5f);
  if (!used) return;
  uint4 words;
  half_t *results = (half_t *)&words;
#pragma unroll
  for (int n = 0; n < 8; n++) results[n] = to_half((held[n] - mean) * scale * scales[n] + shifts[n]);
  *(uint4 *)(normed + place) = words;
}

#define TEXT_THREADS 256
#define AUDIO_THREADS 512
#define AHEAD 4  // keys and values that a group of threads loads before it uses them

// Keys and values as they lie in memory, eight numbers at a time: in float16, or in bytes with a scale for each position.
struct Halves {
  const half_t *numbers;
  typedef uint4 Eight;
  __device__ __forceinline__ Eight eight(int64 at, int lane) const {
    return *(const uint4 *)(numbers + at * HEAD + lane * LANES);
  }
  __device__ __forceinline__ float scale(int64 at) const { return 1.0f; }
};

struct Bytes {
  const signed char *numbers;
  const half_t *scales;
  typedef uint2 Eight;
  __device__ __forceinline__ Eight eight(int64 at, int lane) const {
    return *(const uint2 *)(numbers + at * HEAD + lane * LANES);
  }
  __device__ __forceinline__ float scale(int64 at) const { return to_float(scales[at]); }
};

// Attention of one query over `length` keys and values of its head, by a whole block: into `out` [HEAD], and each key's
// score into `scores` where there is room for them, before the block's return. `top` and `sum` get the largest score, and
// the sum of all as powers of e over it.
template <int THREADS, typename Kept>
__device__ __forceinline__ void attend(const half_t *query, const Kept keys, const Kept values, int length,
                                       half_t *out, float *scores, float *top, float *sum) {
  constexpr int GROUPS = THREADS / LANES;  // that share the keys among them
  __shared__ float mixed[GROUPS][HEAD + 1];
  __shared__ float tops[GROUPS], sums[GROUPS];
  const int lane = threadIdx.x % LANES, group = threadIdx.x / LANES;
  float q[LANES], acc[LANES], best = LOWEST, total = 0.0f;
  unpack(*(const uint4 *)(query + lane * LANES), q);
#pragma unroll
  for (int n = 0; n < LANES; n++) acc[n] = 0.0f;
  for (int first = 0; first < length; first += GROUPS * AHEAD) {
    typename Kept::Eight k[AHEAD], v[AHEAD];
    float key_scale[AHEAD], value_scale[AHEAD];
#pragma unroll
    for (int n = 0; n < AHEAD; n++) {
      const int64 at = min(first + n * GROUPS + group, length - 1);
      k[n] = keys.eight(at, lane);
      v[n] = values.eight(at, lane);
      key_scale[n] = keys.scale(at);
      value_scale[n] = values.scale(at);
    }
    float score[AHEAD], highest = best;
#pragma unroll
    for (int n = 0; n < AHEAD; n++) {
      float key[LANES];
      unpack(k[n], key);
      score[n] = 0.0f;
#pragma unroll
      for (int i = 0; i < LANES; i++) score[n] += q[i] * key[i];
      for (int other = LANES / 2; other; other /= 2) score[n] += __shfl_xor_sync(FULL, score[n], other);
      score[n] *= key_scale[n];
      const int at = first + n * GROUPS + group;
      if (at >= length) score[n] = LOWEST;
      else if (scores && lane == 0) scores[at] = score[n];
      highest = fmaxf(highest, score[n]);
    }
    const float shrink = __expf(best - highest);  // 0 at first, and 1 where nothing was higher
    total *= shrink;
#pragma unroll
    for (int i = 0; i < LANES; i++) acc[i] *= shrink;
#pragma unroll
    for (int n = 0; n < AHEAD; n++) {
      const float share = first + n * GROUPS + group < length ? __expf(score[n] - highest) : 0.0f;
      float value[LANES];
      unpack(v[n], value);
      total += share;
#pragma unroll
      for (int i = 0; i < LANES; i++) acc[i] += share * value_scale[n] * value[i];
    }
    best = highest;
  }
  if (lane == 0) tops[group] = best, sums[group] = total;
  __syncthreads();
  float highest = LOWEST, all = 0.0f;
  for (int other = threadIdx.x % 32; other < GROUPS; other += 32) highest = fmaxf(highest, tops[other]);
  for (int other = 16; other; other /= 2) highest = fmaxf(highest, __shfl_xor_sync(FULL, highest, other));
  for (int other = threadIdx.x % 32; other < GROUPS; other += 32) all += sums[other] * __expf(tops[other] - highest);
  for (int other = 16; other; other /= 2) all += __shfl_xor_sync(FULL, all, other);
  const float share = __expf(best - highest);
#pragma unroll
  for (int i = 0; i < LANES; i++) mixed[group][lane * LANES + i] = acc[i] * share;
  __syncthreads();
  if (threadIdx.x < HEAD) {
    float number = 0.0f;
    for (int other = 0; other < GROUPS; other++) number += mixed[other][threadIdx.x];
    out[threadIdx.x] = to_half(number / all);
  }
  *top = highest;
  *sum = all;
}

// Keeps the rows' new keys and values at their places, and attends to all up to them. qkv [rows, 3, heads, HEAD] →
// mixed [rows, heads, HEAD]; keys and values [capacity, heads, context, HEAD]. A block for each head (x) and row (y).
extern "C" __global__ void __launch_bounds__(TEXT_THREADS)
    attend_text(const half_t *qkv, half_t *keys, half_t *values, const int64 *places, half_t *mixed, const int *first,
                int capacity, int context) {
  const int head = blockIdx.x, heads = gridDim.x;
  const int64 row = blockIdx.y + *first;
  if (row >= capacity) return;
  const int place = (int)min(places[row], (int64)(context - 1));
  const int64 start = (row * heads + head) * context * HEAD;
  const half_t *query = qkv + ((int64)blockIdx.y * 3 * heads + head) * HEAD;
  if (threadIdx.x < HEAD) {
    keys[start + (int64)place * HEAD + threadIdx.x] = query[heads * HEAD + threadIdx.x];
    values[start + (int64)place * HEAD + threadIdx.x] = query[2 * heads * HEAD + threadIdx.x];
  }
  __syncthreads();
  float top, sum;
  half_t *out = mixed + ((int64)blockIdx.y * heads + head) * HEAD;
  attend<TEXT_THREADS>(query, Halves{keys + start}, Halves{values + start}, place + 1, out, nullptr, &top, &sum);
}

// Attends to the rows' audio, of `lengths` [capacity] positions. query, mixed [rows, heads, HEAD]; keys and values
// [capacity, heads, positions, HEAD]. Where `slots` [heads] has no negative number, the weights are kept: `kept` [capacity,
// slots, context, positions] at the token's place. A block for each head (x) and row (y); room for the scores is dynamic.
struct Audio {
  const int *lengths;
  half_t *mixed;
  const int *slots;
  const int64 *places;
  half_t *kept;
  int slot_count, context, positions;
};

template <typename Kept>
__device__ __forceinline__ void attend_row(const half_t *query, const Kept keys, const Kept values, const Audio audio,
                                           int64 row) {
  extern __shared__ float scores[];
  const int head = blockIdx.x, heads = gridDim.x;
  const int64 at = ((int64)blockIdx.y * heads + head) * HEAD;
  const int length = audio.lengths[row], slot = audio.slots[head];
  if (length <= 0) {  // a row that has never been in use
    if (threadIdx.x < HEAD) audio.mixed[at + threadIdx.x] = 0;
    return;
  }
  float top, sum;
  float *wanted = slot < 0 ? nullptr : scores;
  attend<AUDIO_THREADS>(query + at, keys, values, length, audio.mixed + at, wanted, &top, &sum);
  if (slot < 0) return;
  const int64 place = min(audio.places[row], (int64)(audio.context - 1));
  half_t *weights = audio.kept + ((row * audio.slot_count + slot) * audio.context + place) * audio.positions;
  for (int n = threadIdx.x; n < length; n += AUDIO_THREADS) weights[n] = to_half(__expf(scores[n] - top) / sum);
}

extern "C" __global__ void __launch_bounds__(AUDIO_THREADS)
    attend_audio(const half_t *query, const half_t *keys, const half_t *values, const int *lengths, half_t *mixed,
                 const int *slots, const int64 *places, half_t *kept, int slot_count, int context, int positions,
                 const int *first, int capacity) {
  const int64 row = blockIdx.y + *first, start = (row * gridDim.x + blockIdx.x) * positions;
  if (row >= capacity) return;
  attend_row(query, Halves{keys + start * HEAD}, Halves{values + start * HEAD},
             Audio{lengths, mixed, slots, places, kept, slot_count, context, positions}, row);
}

// The same of keys and values in bytes, with `scales` [2, capacity, heads, positions], the second of the values.
extern "C" __global__ void __launch_bounds__(AUDIO_THREADS)
    attend_audio_bytes(const half_t *query, const signed char *keys, const signed char *values, const half_t *scales,
                       const int *lengths, half_t *mixed, const int *slots, const int64 *places, half_t *kept,
                       int slot_count, int context, int positions, const int *first, int capacity) {
  const int64 row = blockIdx.y + *first, start = (row * gridDim.x + blockIdx.x) * positions;
  if (row >= capacity) return;
  const half_t *of_values = scales + (int64)capacity * gridDim.x * positions;
  attend_row(query, Bytes{keys + start * HEAD, scales + start}, Bytes{values + start * HEAD, of_values + start},
             Audio{lengths, mixed, slots, places, kept, slot_count, context, positions}, row);
}

#define KEEP_THREADS 256

// Keeps keys and values in bytes: `product` [rows, length, 2, heads, HEAD] into keys and values [capacity, heads,
// positions, HEAD], and what to multiply them by into scales [2, capacity, heads, positions]. Eight threads (x) for each.
extern "C" __global__ void __launch_bounds__(KEEP_THREADS)
    keep_audio(const half_t *product, signed char *keys, signed char *values, half_t *scales, const int *first, int count,
               int length, int heads, int positions, int capacity) {
  const int64 vector = ((int64)blockIdx.x * KEEP_THREADS + threadIdx.x) / LANES;
  const int lane = threadIdx.x % LANES;
  if (vector >= (int64)count * length * 2 * heads) return;  // all threads of a vector
  const int head = vector % heads, part = vector / heads % 2;
  const int64 position = vector / heads / 2 % length, row = vector / heads / 2 / length + *first;
  if (row >= capacity) return;
  float numbers[LANES], top = 0.0f;
  unpack(*(const uint4 *)(product + vector * HEAD + lane * LANES), numbers);
#pragma unroll
  for (int n = 0; n < LANES; n++) top = fmaxf(top, fabsf(numbers[n]));
  const unsigned together = 0xffu << (threadIdx.x % 32 / LANES * LANES);
  for (int other = LANES / 2; other; other /= 2) top = fmaxf(top, __shfl_xor_sync(together, top, other));
  const half_t kept = to_half(fmaxf(top / 127.0f, 1e-6f));
  const float inverse = 1.0f / to_float(kept);
  uint2 words;
  signed char *bytes = (signed char *)&words;
#pragma unroll
  for (int n = 0; n < LANES; n++) bytes[n] = (signed char)max(-127, min(127, __float2int_rn(numbers[n] * inverse)));
  const int64 target = (row * heads + head) * positions + position;
  *(uint2 *)((part ? values : keys) + target * HEAD + lane * LANES) = words;
  if (lane == 0) scales[part * (int64)capacity * heads * positions + target] = kept;
}

#define CHOOSE_THREADS 1024
#define CHOOSE_LOADS 7  // of 8 logits by a thread: vocabularies of up to 57,344

// The highest logit of a range, and its token; the lower of two tokens that are as high.
struct Best {
  float logit;
  int token;
};

__device__ __forceinline__ void keep(Best *best, float logit, int token) {
  if (logit > best->logit || (logit == best->logit && token < best->token)) best->logit = logit, best->token = token;
}

__device__ __forceinline__ Best block_best(Best best, Best *scratch) {
  for (int other = 16; other; other /= 2) {
    const float logit = __shfl_xor_sync(FULL, best.logit, other);
    keep(&best, logit, __shfl_xor_sync(FULL, best.token, other));
  }
  __syncthreads();
  if (threadIdx.x % 32 == 0) scratch[threadIdx.x / 32] = best;
  __syncthreads();
  best = scratch[threadIdx.x % 32];
  for (int other = 16; other; other /= 2) {
    const float logit = __shfl_xor_sync(FULL, best.logit, other);
    keep(&best, logit, __shfl_xor_sync(FULL, best.token, other));
  }
  return best;
}

// The next token of each row, and its log-probability, by the rules of Whisper (decode/sampling.py), and what the rules
// must know of the row afterwards. logits [rows, stride], of which `vocabulary` count, and those that never may follow are
// minus infinity. Where nothing can be chosen, as of figures that are no numbers, a token is chosen all the same: one that
// there is. The words are the tokens below `first`, the timestamps the others; `initial` ends those that may come
// first. What is chosen is also kept in recent [steps, 2, capacity] by the length of the row's text: the token, and the bits
// of its log-probability. `start` is what is `first` elsewhere.
extern "C" __global__ void __launch_bounds__(CHOOSE_THREADS)
    choose(const half_t *logits, bool *fresh, bool *last, bool *before_last, int64 *latest, int64 *tokens,
           float *logprobs, int64 *lengths, int *recent, const int *start, int steps, int capacity, int stride,
           int vocabulary, int first, int end, int initial) {
  __shared__ Best scratch[CHOOSE_THREADS / 32];
  __shared__ float sums[CHOOSE_THREADS / 32];
  const int64 row = blockIdx.x + *start;
  if (row >= capacity) return;
  const bool was_fresh = fresh[row], was_last = last[row], was_before = before_last[row];
  const bool opened = was_last && !was_before, closed = was_last && was_before && !was_fresh;
  const int text_from = opened ? end : 0;
  const int time_from = first + (int)latest[row] + (opened ? 0 : 1);
  const int time_to = closed ? 0 : was_fresh ? initial : vocabulary;
  const uint4 *loads = (const uint4 *)(logits + (int64)blockIdx.x * stride);
  uint4 held[CHOOSE_LOADS];
  Best text = {LOWEST, end}, time = {LOWEST, vocabulary - 1};
#pragma unroll
  for (int n = 0; n < CHOOSE_LOADS; n++) {
    const int place = n * CHOOSE_THREADS + threadIdx.x, from = place * 8;
    if (from >= vocabulary) continue;
    held[n] = loads[place];
    float numbers[8];
    unpack(held[n], numbers);
#pragma unroll
    for (int i = 0; i < 8; i++) {
      const int token = from + i;
      if (token < first) {
        if (token >= text_from) keep(&text, numbers[i], token);
      } else if (token >= time_from && token < time_to) {
        keep(&time, numbers[i], token);
      }
    }
  }
  text = block_best(text, scratch);
  time = block_best(time, scratch);
  float text_sum = 0.0f, time_sum = 0.0f;
#pragma unroll
  for (int n = 0; n < CHOOSE_LOADS; n++) {
    const int from = (n * CHOOSE_THREADS + threadIdx.x) * 8;
    if (from >= vocabulary) continue;
    float numbers[8];
    unpack(held[n], numbers);
#pragma unroll
    for (int i = 0; i < 8; i++) {
      const int token = from + i;
      if (token < first) {
        if (token >= text_from) text_sum += __expf(numbers[i] - text.logit);
      } else if (token >= time_from && token < time_to) {
        time_sum += __expf(numbers[i] - time.logit);
      }
    }
  }
  text_sum = block_sum(text_sum, sums);
  time_sum = block_sum(time_sum, sums);
  if (threadIdx.x) return;
  const float texts = text.logit + logf(text_sum);
  const float times = time_sum > 0.0f ? time.logit + logf(time_sum) : LOWEST;
  const bool timed = times > text.logit || was_fresh, stamped = timed || time.logit > text.logit;
  const float higher = fmaxf(texts, times), both = higher + logf(expf(texts - higher) + expf(times - higher));
  const int token = stamped ? time.token : text.token;
  const float logprob = (stamped ? time.logit : text.logit) - (timed ? times : both);
  fresh[row] = false;
  before_last[row] = was_last;
  last[row] = stamped;
  if (stamped) latest[row] = token - first;
  int *place = recent + lengths[row] % steps * 2 * capacity + row;
  place[0] = token;
  place[capacity] = __float_as_int(logprob);
  tokens[row] = token;
  logprobs[row] = logprob;
  lengths[row]++;
}

#define COST_THREADS 128
#define MEDIAN 7  // positions, of which the median is taken

// Rounded before anything is taken from it: equal shares have no deviation at all.
__device__ __forceinline__ float share_of(half_t weight, float scale) { return __fmul_rn(to_float(weight), scale); }

// What turns a token's attention into shares: scales [heads, tokens] of attention [heads, tokens, positions], whose weights
// over the whole audio need not sum up to one here. A block for each token (x) and head (y).
extern "C" __global__ void __launch_bounds__(COST_THREADS)
    attention_scales(const half_t *attention, float *scales, int positions) {
  __shared__ float scratch[COST_THREADS / 32];
  const int64 at = (int64)blockIdx.y * gridDim.x + blockIdx.x;
  float sum = 0.0f;
  for (int n = threadIdx.x; n < positions; n += COST_THREADS) sum += to_float(attention[at * positions + n]);
  sum = block_sum(sum, scratch);
  if (threadIdx.x == 0) scales[at] = 1.0f / fmaxf(sum, 1e-9f);
}

// Of each position's shares over all tokens, the mean and the reciprocal of the deviation: [2, heads, positions]. A thread
// for each position (x), blocks for each head (y).
extern "C" __global__ void __launch_bounds__(COST_THREADS)
    attention_spread(const half_t *attention, const float *scales, float *spread, int tokens, int positions) {
  const int position = blockIdx.x * COST_THREADS + threadIdx.x, head = blockIdx.y;
  if (position >= positions) return;
  const half_t *weights = attention + (int64)head * tokens * positions + position;
  float mean = 0.0f, squares = 0.0f;
  for (int token = 0; token < tokens; token++)
    mean += share_of(weights[(int64)token * positions], scales[head * tokens + token]);
  mean /= tokens;
  for (int token = 0; token < tokens; token++) {
    const float away = share_of(weights[(int64)token * positions], scales[head * tokens + token]) - mean;
    squares += away * away;
  }
  spread[head * positions + position] = mean;
  spread[(gridDim.y + head) * positions + position] = 1.0f / fmaxf(sqrtf(squares / tokens), 1e-9f);
}

// Minus the mean over heads of the shares, normalized and each the median of its neighbours: cost [tokens, positions]. A
// thread for each position (x), blocks for each token (y). There are more positions than half a MEDIAN.
extern "C" __global__ void __launch_bounds__(COST_THREADS)
    alignment_cost(const half_t *attention, const float *scales, const float *spread, float *cost, int heads, int tokens,
                   int positions) {
  const int position = blockIdx.x * COST_THREADS + threadIdx.x, token = blockIdx.y;
  if (position >= positions) return;
  float sum = 0.0f;
  for (int head = 0; head < heads; head++) {
    const half_t *weights = attention + ((int64)head * tokens + token) * positions;
    const float *means = spread + head * positions, *inverse = means + heads * positions;
    const float scale = scales[head * tokens + token];
    float near[MEDIAN];
#pragma unroll
    for (int n = 0; n < MEDIAN; n++) {
      int at = abs(position + n - MEDIAN / 2);  // mirrored at both ends
      if (at >= positions) at = 2 * positions - 2 - at;
      near[n] = (share_of(weights[at], scale) - means[at]) * inverse[at];
    }
#pragma unroll
    for (int last = MEDIAN - 1; last >= MEDIAN / 2; last--) {  // the largest of the rest goes to its end
#pragma unroll
      for (int n = 0; n < last; n++) {
        const float lower = fminf(near[n], near[n + 1]);
        near[n + 1] = fmaxf(near[n], near[n + 1]);
        near[n] = lower;
      }
    }
    sum += near[MEDIAN / 2];
  }
  cost[(int64)token * positions + position] = -sum / heads;
}
