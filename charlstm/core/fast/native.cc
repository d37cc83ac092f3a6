// Whole recurrent layers on a CPU, forward and backward, as calls that XLA makes: the backend `native`.
//
// Shapes: T time, B batch, D input, H hidden. W lanes make a vector. Units are padded with zeros to U, a multiple of the
// units of a tile, in everything that is packed; arrays of the caller's are [T, B, H] as they are.
//
// A call runs on the thread that makes it, but for sampling, where threads share the units. A sum is added up in one
// order, whatever rows and threads there are, so that many rows give the bits that each gives alone.

#include <algorithm>
#include <atomic>
#include <bit>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <memory>
#include <numeric>
#include <thread>
#include <vector>

#if defined(__AVX__)
#include <immintrin.h>
#endif
#if defined(__linux__)
#include <sys/mman.h>
#endif

#include "xla/ffi/api/ffi.h"

namespace {

namespace ffi = xla::ffi;

#define INLINE inline __attribute__((always_inline))

// ---- Vectors, by the extensions that GCC and Clang share.

#if defined(__AVX512F__)
constexpr int W = 16, FORWARD_ROWS = 6, BACKWARD_ROWS = 13, GRADIENT_ROWS = 12;  // tiles that fill 32 registers
#elif defined(__AVX2__) && defined(__FMA__)
constexpr int W = 8, FORWARD_ROWS = 3, BACKWARD_ROWS = 6, GRADIENT_ROWS = 6;  // and 16
#elif defined(__ARM_NEON) && defined(__aarch64__)
constexpr int W = 4, FORWARD_ROWS = 6, BACKWARD_ROWS = 13, GRADIENT_ROWS = 12;
#else
#error "this processor has none of AVX-512, AVX2 with FMA, and NEON"
#endif
constexpr int COLUMNS = 2, BLOCK = COLUMNS * W;  // vectors, and floats, of a row of a tile of the backward pass
constexpr int AHEAD = 16;                        // rows of a panel that are asked of the cache before they are multiplied
constexpr int LINE = 64;                         // bytes of a line of the caches
constexpr long FAR = 32 << 20;                   // bytes that leave the cache before they are read again
constexpr long CHUNK = 512;                      // rows whose gate gradients stay in the cache until all have read them

typedef float V __attribute__((vector_size(4 * W), may_alias));
typedef float Unaligned __attribute__((vector_size(4 * W), aligned(4), may_alias));
typedef int32_t Ints __attribute__((vector_size(4 * W), may_alias));
typedef int8_t Bytes __attribute__((vector_size(W), aligned(1), may_alias));

INLINE V load(const float* p) { return *reinterpret_cast<const Unaligned*>(p); }
INLINE void store(float* p, V v) { *reinterpret_cast<Unaligned*>(p) = v; }
INLINE V load(const int8_t* p) {
#if defined(__AVX512F__)  // GCC converts one number at a time
  return (V)_mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p))));
#elif defined(__AVX2__)
  return (V)_mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(_mm_loadl_epi64(reinterpret_cast<const __m128i*>(p))));
#else
  return __builtin_convertvector(*reinterpret_cast<const Bytes*>(p), V);
#endif
}
INLINE V fill(float x) { return x - V{}; }

INLINE void stream(float* p, V v) {  // past the caches, which have no use for it
#if defined(__AVX512F__)
  _mm512_stream_ps(p, (__m512)v);
#elif defined(__AVX2__)
  _mm256_stream_ps(p, (__m256)v);
#else
  store(p, v);
#endif
}

// The first lanes alone, where a row of the caller's ends inside of a vector, or before it.
INLINE V load(const float* p, long lanes) {
  if (lanes >= W) return load(p);
  V v{};
  if (lanes > 0) memcpy(&v, p, lanes * sizeof(float));
  return v;
}
INLINE void store(float* p, V v, long lanes) {
  if (lanes >= W) return store(p, v);
  if (lanes > 0) memcpy(p, &v, lanes * sizeof(float));
}

INLINE V reciprocal(V d) {  // of 1 and more; an estimate of 12 or 14 bits, and a step of Newton's
#if defined(__AVX512F__)
  V r = (V)_mm512_rcp14_ps((__m512)d);
#elif defined(__AVX2__)
  V r = (V)_mm256_rcp_ps((__m256)d);
#else
  return fill(1) / d;
#endif
#if defined(__AVX2__)
  return r + r * (fill(1) - d * r);
#endif
}

constexpr float MAGIC = 12582912.0f;  // 1.5 · 2^23: adding it rounds to an integer, in the last bits

// 1 / (1 + exp(-x)), to 2e-7; NaN for NaN. exp is 2^n times the Taylor series of 2^f, with f in [-1/2, 1/2].
INLINE V sigmoid(V x) {
  constexpr float LN2 = 0.693147180559945f;
  const V low = x > fill(87) ? fill(87) : x, near = low < fill(-87) ? fill(-87) : low;
  const V t = near * fill(-1 / LN2), rounded = t + fill(MAGIC), f = t - (rounded - fill(MAGIC));
  V p = fill(LN2 * LN2 * LN2 * LN2 * LN2 * LN2 / 720);
  p = p * f + fill(LN2 * LN2 * LN2 * LN2 * LN2 / 120);
  p = p * f + fill(LN2 * LN2 * LN2 * LN2 / 24);
  p = p * f + fill(LN2 * LN2 * LN2 / 6);
  p = p * f + fill(LN2 * LN2 / 2);
  p = p * f + fill(LN2);
  p = p * f + fill(1);
  const V e = (V)((Ints)p + ((Ints)rounded << 23));  // MAGIC's own bits leave at the top
  const V result = reciprocal(fill(1) + e) + (near - near);  // NaN stays
  return x < fill(-87) ? V{} : result;                       // zero, which times infinity is NaN as in JAX
}

INLINE V tanh(V x) { return fill(2) * sigmoid(x + x) - fill(1); }

INLINE V rounded(V x, bool round) {  // to the nearest bfloat16, ties to even; infinity and NaN stay
  const Ints bits = (Ints)x, one = Ints{} + 1;
  const V near = (V)((bits + 0x7fff + ((bits >> 16) & one)) & (int32_t)0xffff0000);
  return round ? (x == x ? near : x) : x;
}

// A product that is rounded by itself: whether compilers fuse it with a sum would depend on the tile.
INLINE V apart(V product) { asm("" : "+m"(product)); return product; }

INLINE void store(int8_t* p, V x) {  // the nearest of -127 to 127
  *reinterpret_cast<Bytes*>(p) = __builtin_convertvector((Ints)(x + fill(MAGIC)), Bytes);
}

// ---- Cells: what a step does to a vector of units once the products are there.
//
// `gates` kernels multiply the input and as many the hidden state; sum g of the state's products is `of_hidden(g)`. A
// tile has `units` vectors of units. `state` is what a unit carries besides what is multiplied: c for lstm, h for gru.

struct Lstm {
  static constexpr int gates = 4, sums = 4, saved = 5, units = 1;
  static constexpr bool has_c = true;
  static constexpr int of_hidden(int g) { return g; }

  static INLINE V forward(const V* sum, V& state, V* keep) {
    const V i = sigmoid(sum[0]), f = sigmoid(sum[1]), g = tanh(sum[2]), o = sigmoid(sum[3]);
    keep[0] = i, keep[1] = f, keep[2] = g, keep[3] = o, keep[4] = state;
    state = f * state + i * g;
    return o * tanh(state);
  }
  static INLINE void backward(const V* kept, V d_h, V& d_state, V* d_sum) {
    const V i = kept[0], f = kept[1], g = kept[2], o = kept[3], before = kept[4], one = fill(1);
    const V tanh_c = tanh(f * before + i * g), d_c = d_state + d_h * o * (one - tanh_c * tanh_c);
    d_sum[0] = d_c * g * (i * (one - i)), d_sum[1] = d_c * before * (f * (one - f));
    d_sum[2] = d_c * i * (one - g * g), d_sum[3] = d_h * tanh_c * (o * (one - o));
    d_state = d_c * f;
  }
};

struct Gru {
  static constexpr int gates = 3, sums = 4, saved = 5, units = 1;  // sums r, z, and n's two apart
  static constexpr bool has_c = false;
  static constexpr int of_hidden(int g) { return g == 2 ? 3 : g; }

  static INLINE V forward(const V* sum, V& state, V* keep) {
    const V r = sigmoid(sum[0]), z = sigmoid(sum[1]), n = tanh(sum[2] + r * sum[3]);
    keep[0] = r, keep[1] = z, keep[2] = n, keep[3] = sum[3], keep[4] = state;
    return state = (fill(1) - z) * n + z * state;
  }
  static INLINE void backward(const V* kept, V d_h, V& d_state, V* d_sum) {
    const V r = kept[0], z = kept[1], n = kept[2], product = kept[3], before = kept[4], one = fill(1);
    d_h = d_h + d_state;
    const V d_n = d_h * (one - z) * (one - n * n);
    d_sum[0] = d_n * product * (r * (one - r)), d_sum[1] = d_h * (before - n) * (z * (one - z));
    d_sum[2] = d_n, d_sum[3] = d_n * r;
    d_state = d_h * z;
  }
};

struct Rnn {
  static constexpr int gates = 1, sums = 1, saved = 1, units = 4;
  static constexpr bool has_c = false;
  static constexpr int of_hidden(int g) { return g; }

  static INLINE V forward(const V* sum, V& state, V* keep) { return state = keep[0] = tanh(sum[0]); }
  static INLINE void backward(const V* kept, V d_h, V& d_state, V* d_sum) {
    d_sum[0] = d_h * (fill(1) - kept[0] * kept[0]);
    d_state = V{};
  }
};

template <class C>
constexpr long UNITS = W * std::max<long>(C::units, COLUMNS);  // what U is a multiple of
template <class C>
constexpr long padded(long H) { return (H + UNITS<C> - 1) / UNITS<C> * UNITS<C>; }

// A panel has the kernels' rows for some units, [rows, units, gates, W] of float or int8, after the floats of each sum's
// bias and, with int8, of each column's scale in either kernel. Sizes are counted in weights.
template <class Weight>
constexpr bool narrow = sizeof(Weight) == 1;
template <class C, class Weight>
constexpr long head_size = C::units * W * (C::sums + narrow<Weight> * 2 * C::gates) * sizeof(float) / sizeof(Weight);
template <class C, class Weight>
constexpr long panel_size(long rows) { return head_size<C, Weight> + C::units * C::gates * W * rows; }
template <class C, class Weight>
constexpr long packed_size(long rows, long H) { return padded<C>(H) / (C::units * W) * panel_size<C, Weight>(rows); }

// ---- Memory of a thread's own, kept from call to call.
class Scratch {
 public:
  float* get(size_t floats) {
    floats = std::max<size_t>(floats, 1);
    if (floats > size_) {
      const size_t page = size_t{2} << 20;  // a huge one
      size_ = (floats * sizeof(float) + page - 1) / page * page / sizeof(float);
      data_.reset(static_cast<float*>(std::aligned_alloc(page, size_ * sizeof(float))));
#if defined(__linux__)
      madvise(data_.get(), size_ * sizeof(float), MADV_HUGEPAGE);
#endif
    }
    return data_.get();
  }

 private:
  struct Free { void operator()(float* p) const { std::free(p); } };
  std::unique_ptr<float, Free> data_;
  size_t size_ = 0;
};

thread_local struct { Scratch packed, packed_x, state, first, before, chunks, factor; } scratch;

// ---- Tiles.

template <int N>
using Number = std::integral_constant<int, N>;

// Calls f(first row, Number of rows) for blocks of at most MOST rows, as equal as they can be.
template <int MOST, class F>
INLINE void in_blocks(long count, F f) {
  const long blocks = (count + MOST - 1) / MOST;
  for (long b = 0, at = 0; b < blocks; b++) {
    const long rows = count / blocks + (b < count % blocks);
    [&]<int... N>(std::integer_sequence<int, N...>) {
      (void)((rows == N + 1 && (f(at, Number<N + 1>{}), true)) || ...);
    }(std::make_integer_sequence<int, MOST>{});
    at += rows;
  }
}

// sum[r][column(v)] += Σ_k rows[r·stride + k·step] · panel[k][v], for NV vectors v; returns the end of the panel.
//
// Meanwhile K lines from `next` on come from far memory into the near cache: a panel that were read there at first use
// would be waited for by all of its first tile.
template <int MR, int NV, int NS, class Weight, class Column>
INLINE const Weight* multiply(const float* rows, long stride, long step, const Weight* panel, long K, V (&sum)[MR][NS],
                              Column column, const Weight*& next) {
  constexpr int line = LINE / sizeof(Weight);
#pragma GCC unroll 2
  for (long k = 0; k < K; k++) {
    V b[NV];
#pragma GCC unroll 8
    for (int v = 0; v < NV; v++) b[v] = load(panel + v * W);
#pragma GCC unroll 8
    for (int at = 0; at < NV * W; at += line) __builtin_prefetch(panel + NV * AHEAD * W + at);
    __builtin_prefetch(next, 0, 2);
    next += line;
#pragma GCC unroll 16
    for (int r = 0; r < MR; r++) {
      const V a = fill(rows[r * stride + k * step]);
#pragma GCC unroll 8
      for (int v = 0; v < NV; v++) sum[r][column(v)] += a * b[v];
    }
    panel += NV * W;
  }
  return panel;
}

constexpr auto same = [](int v) { return v; };

// ---- Forward.

// kernel [D, G·H], recurrent [K, G·H], bias [G·H] and inner bias [H] or null to panels. int8 takes the nearest of 255
// steps, of which a column's largest weight is the last.
template <class C, class Weight>
void pack(long D, long K, long H, bool round, const float* kernel, const float* recurrent, const float* bias,
          const float* inner, Weight* out) {
  constexpr int NV = C::units * C::gates;
  for (long from = 0; from < padded<C>(H); from += C::units * W) {
    float* head = reinterpret_cast<float*>(out);
    for (int u = 0; u < C::units; u++)
      for (int s = 0; s < C::sums; s++, head += W) {
        const long unit = from + u * W;
        const float* start = s < C::gates ? bias + s * H : inner;
        store(head, start ? load(start + unit, H - unit) : V{});
      }
    out += head_size<C, Weight>;
    const auto pack_rows = [&](const float* rows, long count) {
      const auto weights = [&](long k, int v) {
        const long unit = from + v / C::gates * W;
        return load(rows + (k * C::gates + v % C::gates) * H + unit, H - unit);
      };
      V scale[NV] = {};
      if constexpr (narrow<Weight>)
        for (int v = 0; v < NV; v++, head += W) {
          for (long k = 0; k < count; k++) {
            const V w = weights(k, v), size = w < -w ? -w : w;
            scale[v] = (size > scale[v] ? size : scale[v]) + (w - w);  // NaN where a weight is not finite
          }
          scale[v] = scale[v] == V{} ? fill(1) : scale[v] / fill(127);
          store(head, scale[v]);
        }
      for (long k = 0; k < count; k++)
        for (int v = 0; v < NV; v++, out += W)
          store(out, narrow<Weight> ? weights(k, v) / scale[v] : rounded(weights(k, v), round));
    };
    pack_rows(kernel, D);
    pack_rows(recurrent, K);
  }
}

template <class Weight>
struct ForwardStep {
  long B, D, H;
  bool round, far;  // far: what is saved is streamed
  const Weight* packed;
  const float* x;       // [B, D], or null and
  const int32_t* ids;   // [B], rows of the kernel
  const float* before;  // h [B, H], as the products read it
  float *state, *saved; // [U/W, B, W] and [U/W, B, saved, W]; saved may be null
  float *hidden, *last; // h [B, H] after the step, as products read it and as it is; last may be null
};

// As `multiply`, with `scale` for each column of int8.
template <int MR, int NV, int NS, class Weight, class Column>
INLINE void add_product(const float* rows, const Weight* panel, const float* scale, long K, V (&sum)[MR][NS], Column column,
                        const Weight*& next) {
  if constexpr (narrow<Weight>) {
    V part[MR][NV] = {};
    multiply<MR, NV>(rows, K, 1, panel, K, part, same, next);
    for (int r = 0; r < MR; r++)
      for (int v = 0; v < NV; v++) sum[r][column(v)] += apart(part[r][v] * load(scale + v * W));
  } else {
    multiply<MR, NV>(rows, K, 1, panel, K, sum, column, next);
  }
}

template <class C, int MR, class Weight>
void forward_tile(const ForwardStep<Weight>& s, long row, long number, const Weight*& next) {
  constexpr int NV = C::units * C::gates, NS = C::units * C::sums;
  const long H = s.H, from = number * C::units * W;
  const Weight* panel = s.packed + number * panel_size<C, Weight>(s.D + H);
  const Weight* inputs = panel + head_size<C, Weight>;
  const float *bias = reinterpret_cast<const float*>(panel), *scale = bias + NS * W;
  const auto of_hidden = [](int v) { return v / C::gates * C::sums + C::of_hidden(v % C::gates); };
  const auto of_input = [](int v) { return v / C::gates * C::sums + v % C::gates; };
  V sum[MR][NS];
  for (int r = 0; r < MR; r++)
    for (int v = 0; v < NS; v++) sum[r][v] = load(bias + v * W);
  if (s.ids)
    for (int r = 0; r < MR; r++)
      for (int v = 0; v < NV; v++) {
        const V weights = load(inputs + (s.ids[row + r] * NV + v) * W);
        sum[r][of_input(v)] += narrow<Weight> ? apart(weights * load(scale + v * W)) : weights;
      }
  else
    add_product<MR, NV>(s.x + row * s.D, inputs, scale, s.D, sum, of_input, next);
  add_product<MR, NV>(s.before + row * H, inputs + s.D * NV * W, scale + NV * W, H, sum, of_hidden, next);
#pragma GCC unroll 16
  for (int r = 0; r < MR; r++)
#pragma GCC unroll 4
    for (int u = 0; u < C::units; u++) {
      const long unit = from + u * W, block = (unit / W) * s.B + row + r;
      V state = load(s.state + block * W), keep[C::saved];
      const V h = C::forward(&sum[r][u * C::sums], state, keep);
      store(s.state + block * W, state);
      store(s.hidden + (row + r) * H + unit, rounded(h, s.round), H - unit);
      if (s.last) store(s.last + (row + r) * H + unit, h, H - unit);
      float* to = s.saved + block * C::saved * W;
      for (int v = 0; s.saved && v < C::saved; v++, to += W) s.far ? stream(to, keep[v]) : store(to, keep[v]);
    }
}

template <class C, class Weight>
void forward_panel(const ForwardStep<Weight>& s, long number) {  // all rows of its units
  const long panels = padded<C>(s.H) / (C::units * W), size = panel_size<C, Weight>(s.D + s.H);
  const Weight *here = s.packed + number * size, *after = s.packed + (number + 1) % panels * size, *next = after;
  in_blocks<FORWARD_ROWS>(s.B, [&](long row, auto count) {
    if (next >= after + size) next = here;  // all of that panel was asked for
    forward_tile<C, count>(s, row, number, next);
  });
}

// [B, H] to [U/W, B, W], or back.
template <class C, bool BACK, class Plain, class Blocks>
void reblock(Plain* plain, long B, long H, Blocks* blocks) {
  for (long unit = 0; unit < padded<C>(H); unit += W)
    for (long r = 0; r < B; r++, blocks += W)
      if constexpr (BACK) store(plain + r * H + unit, load(blocks), H - unit);
      else store(blocks, load(plain + r * H + unit, H - unit));
}

void copy(const float* from, long count, bool round, float* to) {
  for (long at = 0; at < count; at += W) store(to + at, rounded(load(from + at, count - at), round), count - at);
}

struct Shape { long T, B, D, H; bool round; };  // round the factors of products to bfloat16

template <class C>
void run_forward(Shape n, const float* packed, const int32_t* ids, const float* x, const float* c0, const float* h0,
                 const bool* resets, float* hidden, float* last_c, float* last_h, float* saved) {
  const long rows = n.B * n.H, U = padded<C>(n.H);
  float *state = scratch.state.get(n.B * U), *first = scratch.first.get(rows), *kept = scratch.before.get(rows);
  const bool far = saved && n.T * n.B * U * C::saved * 4 > FAR && reinterpret_cast<uintptr_t>(saved) % (4 * W) == 0;
  reblock<C, false>(C::has_c ? c0 : h0, n.B, n.H, state);
  copy(h0, rows, n.round, first);
  memcpy(last_h, h0, rows * sizeof(float));
  for (long t = 0; t < n.T; t++) {
    const float* before = t ? hidden + (t - 1) * rows : first;
    if (const bool* now = resets ? resets + t * n.B : nullptr; now && std::any_of(now, now + n.B, same)) {
      memcpy(kept, before, rows * sizeof(float));
      for (long r = 0; r < n.B; r++)
        if (now[r]) {
          memset(kept + r * n.H, 0, n.H * sizeof(float));
          for (long v = 0; v < U / W; v++) store(state + (v * n.B + r) * W, V{});
        }
      before = kept;
    }
    const ForwardStep<float> s{n.B, n.D, n.H, n.round, far, packed, x ? x + t * n.B * n.D : x, ids ? ids + t * n.B : ids, before,
                               state, saved ? saved + t * n.B * U * C::saved : saved, hidden + t * rows,
                               t == n.T - 1 ? last_h : nullptr};
    for (long p = 0; p < U / (C::units * W); p++) forward_panel<C>(s, p);
  }
#if defined(__AVX__)
  _mm_sfence();  // what was streamed is there for whoever reads it next
#endif
  if (C::has_c) reblock<C, true>(last_c, n.B, n.H, state);
}

// ---- Sampling: all layers, the head and the draw, some symbols in a call.

// Threads that share the pieces of one phase after another. The calling thread waits for no helper to start, so a busy
// pool costs only time. Each has a part, which stays in its cache, and helps with the others' when that is done.
struct Crew {
  static constexpr long SPINS = 2000;
  struct alignas(LINE) Part { std::atomic<uint64_t> left{0}; };  // the next piece of it, and its end in the low half

  std::vector<Part> parts;
  std::function<void(long)> piece;  // is changed when all pieces are done, and no thread reads it
  alignas(LINE) std::atomic<long> done{0};
  std::atomic<bool> over{false};

  const std::thread::id caller = std::this_thread::get_id();
  explicit Crew(long threads) : parts(threads) {}

  template <class F>
  void run(long pieces, const F& f) {
    piece = [&f](long i) { f(i); };
    done = 0;
    for (uint64_t i = 0, threads = parts.size(); i < threads; i++)
      parts[i].left = i * pieces / threads << 32 | (i + 1) * pieces / threads;
    while (take(0)) {}
    for (long idle = 0; done < pieces; idle++)
      if (idle > SPINS) std::this_thread::yield();
  }

  void help(size_t mine) {
    for (long idle = 0; !over && std::this_thread::get_id() != caller; idle++)  // which a full pool asks to help itself
      if (take(mine)) idle = 0;
      else if (idle > SPINS) std::this_thread::yield();
  }

  bool take(size_t mine) {
    for (size_t i = 0; i < parts.size(); i++) {
      std::atomic<uint64_t>& part = parts[(mine + i) % parts.size()].left;
      for (uint64_t left = part; left >> 32 < (left & 0xffffffff);)
        if (part.compare_exchange_weak(left, left + (uint64_t{1} << 32))) {
          piece(left >> 32);
          done++;
          return true;
        }
    }
    return false;
  }
};

// out [rows, U] = rows of x [rows, H] times a panel of the head, which is packed as a kernel of rnn.
template <int MR, class Weight>
void head_tile(const float* x, long H, const Weight* panel, long width, float* out) {
  constexpr int NV = Rnn::units;
  const float* bias = reinterpret_cast<const float*>(panel);
  const Weight *rows = panel + head_size<Rnn, Weight>, *next = rows;
  V sum[MR][NV];
  for (int r = 0; r < MR; r++)
    for (int v = 0; v < NV; v++) sum[r][v] = load(bias + v * W);
  add_product<MR, NV>(x, rows, bias + NV * W, H, sum, same, next);
  for (int r = 0; r < MR; r++)
    for (int v = 0; v < NV; v++) store(out + r * width + v * W, sum[r][v]);
}

// An id from softmax(logits [V] / temperature) among the K likeliest, by noise [K]; what `analysis.sample.choose` is.
int32_t choose(const float* logits, long V, const float* noise, long K, float temperature, std::vector<int32_t>& ids) {
  ids.resize(V);
  std::iota(ids.begin(), ids.end(), 0);
  const auto key = [&](int32_t id) {  // orders as floats do, and NaN too
    const int32_t bits = std::bit_cast<int32_t>(logits[id]);
    return bits ^ (bits >> 31 & 0x7fffffff);
  };
  if (K < V) std::stable_sort(ids.begin(), ids.end(), [&](int32_t a, int32_t b) { return key(a) > key(b); });
  float most = logits[ids[0]];
  for (long k = 1; k < K; k++)
    if (const float x = logits[ids[k]]; x > most || x != x) most = x;
  long best = 0;
  float highest = -INFINITY;
  for (long k = 0; k < K && highest == highest; k++) {
    const float distance = logits[ids[k]] - most, score = temperature > 0 ? distance / temperature + noise[k] : distance;
    if (!(score <= highest)) highest = score, best = k;
  }
  return ids[best];
}

struct Drawing {
  long steps, B, L, V, H, K, position;  // position: of the first symbol; below 0 they are given
  bool round;
  const float *noise, *c0, *h0;  // [steps, B, K], [L, B, H]
  const int32_t* given;          // [steps]
  float temperature;
  int32_t newline, *symbols;     // what is read from a zero carry; [steps, B]
  float *c, *h;                  // [L, B, H]
};

template <class C, class Weight>
void draw(const Drawing& n, const Weight* packed, Crew& crew) {
  const long rows = n.B * n.H, U = padded<C>(n.H), width = padded<Rnn>(n.V);
  const Weight* upper = packed + packed_size<C, Weight>(n.V + n.H, n.H);
  const Weight* head = upper + (n.L - 1) * packed_size<C, Weight>(2 * n.H, n.H);
  float *state = scratch.state.get(n.L * n.B * U), *both = scratch.before.get(2 * n.L * rows);
  float* logits = scratch.first.get(n.B * width);
  std::vector<int32_t> ids, read(n.B);
  for (long l = 0; l < n.L; l++) reblock<C, false>((C::has_c ? n.c0 : n.h0) + l * rows, n.B, n.H, state + l * n.B * U);
  copy(n.h0, n.L * rows, n.round, both);
  memcpy(n.h, n.h0, n.L * rows * sizeof(float));
  for (long t = 0; t < n.steps; t++) {
    float *before = both + t % 2 * n.L * rows, *after = both + (t + 1) % 2 * n.L * rows;
    int32_t* now = n.symbols + t * n.B;
    if (n.position + t < 0) {
      std::fill(now, now + n.B, n.given[t]);
    } else {
      crew.run(width / (Rnn::units * W), [&](long p) {
        in_blocks<FORWARD_ROWS>(n.B, [&](long row, auto count) {
          head_tile<count>(before + (n.L - 1) * rows + row * n.H, n.H, head + p * panel_size<Rnn, Weight>(n.H), width,
                           logits + row * width + p * Rnn::units * W);
        });
      });
      for (long r = 0; r < n.B; r++)
        now[r] = choose(logits + r * width, n.V, n.noise + (t * n.B + r) * n.K, n.K, n.temperature, ids);
    }
    for (long r = 0; r < n.B; r++) {
      read[r] = std::clamp<int32_t>(now[r], 0, n.V - 1);  // as in JAX
      for (long l = 0; now[r] == n.newline && l < n.L; l++) {
        memset(before + l * rows + r * n.H, 0, n.H * sizeof(float));
        for (long v = 0; v < U / W; v++) store(state + (l * n.B * U / W + v * n.B + r) * W, V{});
      }
    }
    for (long l = 0; l < n.L; l++) {
      const Weight* layer = l ? upper + (l - 1) * packed_size<C, Weight>(2 * n.H, n.H) : packed;
      const ForwardStep<Weight> s{n.B, l ? n.H : n.V, n.H, n.round, false, layer, l ? after + (l - 1) * rows : nullptr,
                                  l ? nullptr : read.data(), before + l * rows, state + l * n.B * U, nullptr, after + l * rows,
                                  n.h + l * rows};
      crew.run(U / (C::units * W), [&](long p) { forward_panel<C>(s, p); });
    }
  }
  if (C::has_c)
    for (long l = 0; l < n.L; l++) reblock<C, true>(n.c + l * rows, n.B, n.H, state + l * n.B * U);
}

// ---- Backward. The gradients of the sums live in chunks of some time steps, [sums, U/BLOCK, rows, BLOCK], where all
// products that they are factors of read them.

// kernel [M, G·H], transposed, to panels of BLOCK of its rows: [blocks, G, U, BLOCK], with zeros past M.
template <class C>
void pack_transposed(const float* kernel, long M, long blocks, long H, bool round, float* out) {
  const long width = C::gates * H, U = padded<C>(H);
  for (long block = 0; block < blocks * BLOCK; block += BLOCK)
    for (int g = 0; g < C::gates; g++)
      for (long u = 0; u < U; u += W, out += W * BLOCK)
        for (long m = block; m < block + BLOCK; m += W) {
          V rows[W] = {};
          for (long i = 0; i < std::min<long>(W, M - m); i++)
            rows[i] = rounded(load(kernel + (m + i) * width + g * H + u, H - u), round);
          for (int j = 0; j < W; j++)
            for (int i = 0; i < W; i++) out[j * BLOCK + m - block + i] = rows[i][j];
        }
}

struct Gradients {  // of the sums, in a chunk
  float* data;
  long rows, blocks;  // U / BLOCK
  float* at(int sum, long block, long row) const { return data + ((sum * blocks + block) * rows + row) * BLOCK; }
};

// sum += rows of the gradients times a panel of a transposed kernel.
template <class C, bool OF_HIDDEN, int MR>
INLINE void multiply_gradients(const Gradients& d, long row, const float* panel, V (&sum)[MR][COLUMNS],
                               const float*& next) {
  for (int g = 0; g < C::gates; g++)
    for (long block = 0; block < d.blocks; block++) {
      const float* rows = d.at(OF_HIDDEN ? C::of_hidden(g) : g, block, row);
      if (!OF_HIDDEN) next = rows + d.rows * BLOCK;  // a chunk is larger than the near cache, a panel is not
      panel = multiply<MR, COLUMNS>(rows, BLOCK, 1, panel, BLOCK, sum, same, next);
    }
}

// out [rows, M] = gradients times a transposed kernel; rows that are reset stay zero.
template <class C, bool OF_HIDDEN>
void products(const Gradients& d, long from, long count, const float* packed, long M, const bool* resets, float* out) {
  for (long m = 0; m < M; m += BLOCK)
    in_blocks<BACKWARD_ROWS>(count, [&](long row, auto rows) {
      V sum[rows][COLUMNS] = {};
      const float *panel = packed + m * C::gates * d.blocks * BLOCK, *next = panel;
      multiply_gradients<C, OF_HIDDEN>(d, from + row, panel, sum, next);
      for (int r = 0; r < rows; r++)
        for (int v = 0; v < COLUMNS; v++) {
          const bool zero = resets && resets[row + r];
          store(out + (row + r) * M + m + v * W, zero ? V{} : sum[r][v], M - m - v * W);
        }
    });
}

struct BackwardStep {
  long B, H;
  bool round;
  Gradients later, now;
  long later_row, row;  // where the steps begin in their chunks
  const float* packed;
  long panel;                              // floats of a panel of it
  const float *saved, *d_hidden, *d_last;  // [U/W, B, saved, W], [B, H]; d_last is null but at the last step
  const bool* resets;                      // of the step after, or null
  float* d_state;                          // [U/W, B, W]
};

template <class C, int MR>
void backward_tile(const BackwardStep& s, long row, long block, const float*& next) {
  for (int v = 0; v < COLUMNS; v++)  // into the cache while the product runs
    for (int r = 0; r < MR; r++) {
      const long at = (block * COLUMNS + v) * s.B + row + r;
      for (int k = 0; k < C::saved; k++) __builtin_prefetch(s.saved + (at * C::saved + k) * W, 0, 2);
      __builtin_prefetch(s.d_hidden + (row + r) * s.H + block * BLOCK + v * W, 0, 2);
    }
  V sum[MR][COLUMNS] = {}, d_h[MR][COLUMNS];
  if (!s.d_last) multiply_gradients<C, true>(s.later, s.later_row + row, s.packed + block * s.panel, sum, next);
  memcpy(d_h, sum, sizeof sum);  // out of the registers, which the gates need
  for (int r = 0; r < MR; r++)
    for (int v = 0; v < COLUMNS; v++) {
      const long unit = block * BLOCK + v * W, at = (unit / W) * s.B + row + r, lanes = s.H - unit;
      const bool zero = s.resets && s.resets[row + r];
      V d_state = zero ? V{} : load(s.d_state + at * W), d = zero ? V{} : d_h[r][v], d_sum[C::sums], kept[C::saved];
      for (int k = 0; k < C::saved; k++) kept[k] = load(s.saved + (at * C::saved + k) * W);
      d += load(s.d_hidden + (row + r) * s.H + unit, lanes);
      if (s.d_last) d += load(s.d_last + (row + r) * s.H + unit, lanes);
      C::backward(kept, d, d_state, d_sum);
      store(s.d_state + at * W, d_state);
      for (int k = 0; k < C::sums; k++) store(s.now.at(k, block, s.row + row + r) + v * W, rounded(d_sum[k], s.round));
    }
}

// out [M, G·H] += inputs [rows, M]ᵀ times the chunk's gradients; row(r) are the inputs of a row, or null for zeros.
template <class C, bool OF_HIDDEN, class Row>
void add_kernel_gradient(const Gradients& d, long M, long H, Row row, float* out) {
  const long panels = (M + GRADIENT_ROWS - 1) / GRADIENT_ROWS, width = C::gates * H;
  float* factor = scratch.factor.get(panels * d.rows * GRADIENT_ROWS);
  for (long r = 0; r < d.rows; r++)
    for (long p = 0; p < panels; p++) {
      const float* from = row(r);
      float* to = factor + (p * d.rows + r) * GRADIENT_ROWS;
      const long count = M - p * GRADIENT_ROWS;  // what the last panel has besides is multiplied, and stored nowhere
      if (!from) memset(to, 0, GRADIENT_ROWS * sizeof(float));
      else if (count >= GRADIENT_ROWS) memcpy(to, from + p * GRADIENT_ROWS, GRADIENT_ROWS * sizeof(float));
      else memcpy(to, from + p * GRADIENT_ROWS, count * sizeof(float));
    }
  for (int g = 0; g < C::gates; g++)
    for (long block = 0; block < d.blocks; block++)
      for (long p = 0; p < panels; p++) {
        V sum[GRADIENT_ROWS][COLUMNS] = {};
        const long count = std::min<long>(GRADIENT_ROWS, M - p * GRADIENT_ROWS);
        float* to = out + p * GRADIENT_ROWS * width + g * H + block * BLOCK;
        for (int r = 0; r < count; r++)
          for (int v = 0; v < COLUMNS; v++) __builtin_prefetch(to + r * width + v * W, 1);
        const float *panel = d.at(OF_HIDDEN ? C::of_hidden(g) : g, block, 0), *next = panel;
        multiply<GRADIENT_ROWS, COLUMNS>(factor + p * d.rows * GRADIENT_ROWS, 1, GRADIENT_ROWS, panel, d.rows, sum, same, next);
        for (int r = 0; r < count; r++)
          for (int v = 0; v < COLUMNS; v++) {
            const long lanes = H - block * BLOCK - v * W;
            store(to + r * width + v * W, load(to + r * width + v * W, lanes) + sum[r][v], lanes);
          }
      }
}

// out[row(r)] += the chunk's gradients of row r, for `sums` of them side by side.
template <class Row>
void add_rows(const Gradients& d, int sums, long H, Row row, float* out) {
  for (int s = 0; s < sums; s++)
    for (long unit = 0; unit < H; unit += W)
      for (long r = 0; r < d.rows; r++) {
        float* to = out + row(r) * sums * H + s * H + unit;
        store(to, load(to, H - unit) + load(d.at(s, unit / BLOCK, r) + unit % BLOCK), H - unit);
      }
}

struct Outputs { float *d_x, *d_kernel, *d_recurrent, *d_bias, *d_c0, *d_h0; };  // d_bias [sums·H]; d_x null for ids

template <class C>
void run_backward(Shape n, const float* kernel, const float* recurrent, const int32_t* ids, const float* x, const float* h0,
                  const bool* resets, const float* hidden, const float* saved, const float* d_hidden, const float* d_c,
                  const float* d_h, Outputs out) {
  const long rows = n.B * n.H, U = padded<C>(n.H), blocks = U / BLOCK, width = C::gates * n.H;
  const long chunks = (n.T * n.B + CHUNK - 1) / CHUNK, steps = (n.T + chunks - 1) / chunks;
  const long chunk_floats = steps * n.B * C::sums * U, transposed = C::gates * U * BLOCK;
  float *packed = scratch.packed.get(blocks * transposed), *first = scratch.first.get(rows);
  float *d_state = scratch.state.get(n.B * U), *space = scratch.chunks.get(2 * chunk_floats), *packed_x = nullptr;
  pack_transposed<C>(recurrent, n.H, blocks, n.H, n.round, packed);
  if (!ids) {
    packed_x = scratch.packed_x.get((n.D + BLOCK - 1) / BLOCK * transposed);
    pack_transposed<C>(kernel, n.D, (n.D + BLOCK - 1) / BLOCK, n.H, n.round, packed_x);
  }
  memset(out.d_kernel, 0, n.D * width * sizeof(float));
  memset(out.d_recurrent, 0, n.H * width * sizeof(float));
  memset(out.d_bias, 0, C::sums * n.H * sizeof(float));
  memset(d_state, 0, n.B * U * sizeof(float));
  if (C::has_c) reblock<C, false>(d_c, n.B, n.H, d_state);
  copy(h0, rows, n.round, first);

  Gradients later{};
  long later_row = 0;
  for (long end = n.T, number = 0; end > 0; end -= steps, number++) {
    const long begin = std::max(0l, end - steps);
    const Gradients now{space + (number % 2) * chunk_floats, (end - begin) * n.B, blocks};
    for (long t = end - 1; t >= begin; t--) {
      const bool last = t == n.T - 1;
      const BackwardStep s{n.B, n.H, n.round, later, now, later_row, (t - begin) * n.B, packed, transposed, saved + t * n.B * U * C::saved,
                           d_hidden + t * rows, last ? d_h : nullptr,
                           resets && !last ? resets + (t + 1) * n.B : nullptr, d_state};
      for (long block = 0; block < blocks; block++) {
        const float *here = packed + block * transposed, *after = packed + (block + 1) % blocks * transposed, *next = after;
        in_blocks<BACKWARD_ROWS>(n.B, [&](long row, auto count) {
          if (next >= after + transposed) next = here;
          backward_tile<C, count>(s, row, block, next);
        });
      }
      later = now, later_row = s.row;
    }
    const auto before = [&](long r) -> const float* {
      const long at = begin * n.B + r;
      if (resets && resets[at]) return nullptr;
      return at < n.B ? first + at * n.H : hidden + (at - n.B) * n.H;
    };
    add_kernel_gradient<C, true>(now, n.H, n.H, before, out.d_recurrent);
    if (ids) {
      add_rows(now, C::gates, n.H, [&](long r) { return ids[begin * n.B + r]; }, out.d_kernel);
    } else {
      const float* inputs = x + begin * n.B * n.D;
      add_kernel_gradient<C, false>(now, n.D, n.H, [&](long r) { return inputs + r * n.D; }, out.d_kernel);
      products<C, false>(now, 0, now.rows, packed_x, n.D, nullptr, out.d_x + begin * n.B * n.D);
    }
    add_rows(now, C::sums, n.H, [](long) { return 0l; }, out.d_bias);
  }
  products<C, true>(later, later_row, n.B, packed, n.H, resets, out.d_h0);
  for (long unit = 0; unit < U; unit += W)
    for (long r = 0; r < n.B; r++) {
      const V state = resets && resets[r] ? V{} : load(d_state + (unit / W * n.B + r) * W);
      float* to = (C::has_c ? out.d_c0 : out.d_h0) + r * n.H + unit;
      store(to, C::has_c ? state : load(to, n.H - unit) + state, n.H - unit);
    }
}

// ---- What XLA calls. Leading axes of every array, the same for all, are layers that have nothing to do with each other.

using Floats = ffi::Buffer<ffi::F32>;
using FloatsOut = ffi::ResultBuffer<ffi::F32>;
using Flags = ffi::Buffer<ffi::PRED>;
using Numbers = ffi::Buffer<ffi::S32>;

#ifndef CHARLSTM_CELL  // each is compiled on its own, side by side
#define CHARLSTM_CELL Lstm
#endif
using C = CHARLSTM_CELL;

template <class B>
long from_end(const B& buffer, int axis) { return buffer.dimensions()[buffer.dimensions().size() - axis]; }

// What layer number `layer` of `layers` has of an array; null where it has nothing.
template <class B>
auto part(B&& buffer, long layer, long layers) -> decltype(buffer.typed_data()) {
  const long count = buffer.element_count() / layers;
  return count ? buffer.typed_data() + layer * count : nullptr;
}

std::vector<int32_t> ids_of(const ffi::AnyBuffer& inputs, long D) {  // which are clamped to what there is, as in JAX
  if (inputs.element_type() != ffi::S32) return {};
  const int32_t* from = static_cast<const int32_t*>(inputs.untyped_data());
  std::vector<int32_t> ids(from, from + inputs.element_count());
  for (int32_t& id : ids) id = std::clamp<int32_t>(id, 0, D - 1);
  return ids;
}

// Calls f with a buffer's values, float or int8, as weights.
template <class B, class F>
void with_weights(B& packed, F f) {
  if (packed.element_type() == ffi::S8) f(static_cast<int8_t*>(packed.untyped_data()));
  else f(static_cast<float*>(packed.untyped_data()));
}

ffi::Error Pack(Floats kernel, Floats recurrent, Floats bias, Floats inner, ffi::Result<ffi::AnyBuffer> packed, bool round) {
  const long D = from_end(kernel, 2), K = from_end(recurrent, 2), width = from_end(bias, 1);
  const long layers = bias.element_count() / width, size = packed->element_count() / layers;
  with_weights(*packed, [&](auto* out) {
    for (long i = 0; i < layers; i++) {
      const auto of = [&](auto& each) { return part(each, i, layers); };
      pack<C>(D, K, width / C::gates, round, of(kernel), of(recurrent), of(bias), of(inner), out + i * size);
    }
  });
  return ffi::Error::Success();
}

ffi::Error Draw(ffi::ThreadPool pool, ffi::AnyBuffer packed, Floats c0, Floats h0, Floats noise, Numbers given,
                Numbers position, Floats temperature, Numbers newline, Numbers count, ffi::ResultBuffer<ffi::S32> symbols,
                FloatsOut c, FloatsOut h, bool round, int64_t width, int64_t threads) {
  std::fill_n(symbols->typed_data(), symbols->element_count(), 0);
  const Drawing n{std::clamp<long>(*count.typed_data(), 0, from_end(noise, 3)), from_end(noise, 2), from_end(h0, 3), width, from_end(h0, 1), from_end(noise, 1),
                  *position.typed_data(), round, noise.typed_data(), c0.typed_data(), h0.typed_data(), given.typed_data(),
                  *temperature.typed_data(), *newline.typed_data(), symbols->typed_data(), c->typed_data(), h->typed_data()};
  const auto crew = std::make_shared<Crew>(threads);
  for (long i = 1; i < threads; i++) pool.Schedule([crew, i] { crew->help(i); });
  with_weights(packed, [&](const auto* weights) { draw<C>(n, weights, *crew); });
  crew->over = true;
  return ffi::Error::Success();
}

ffi::Error Forward(Floats packed, ffi::AnyBuffer inputs, Floats c0, Floats h0, Flags resets, FloatsOut hidden,
                   FloatsOut last_c, FloatsOut last_h, FloatsOut saved, bool round, int64_t width) {
  const Shape n{from_end(*hidden, 3), from_end(*hidden, 2), width, from_end(*hidden, 1), round};
  const long layers = h0.element_count() / (n.B * n.H);
  const auto ids = ids_of(inputs, n.D);
  const float* x = ids.empty() ? static_cast<const float*>(inputs.untyped_data()) : nullptr;
  for (long i = 0; i < layers; i++) {
    const auto of = [&](auto& each) { return part(each, i, layers); };
    run_forward<C>(n, of(packed), x ? nullptr : &ids[i * n.T * n.B], x ? x + i * n.T * n.B * n.D : x, of(c0), of(h0),
                   of(resets), of(*hidden), of(*last_c), of(*last_h), of(*saved));
  }
  return ffi::Error::Success();
}

ffi::Error Backward(Floats kernel, Floats recurrent, ffi::AnyBuffer inputs, Floats h0, Flags resets, Floats hidden,
                    Floats saved, Floats d_hidden, Floats d_c, Floats d_h, FloatsOut d_x, FloatsOut d_kernel,
                    FloatsOut d_recurrent, FloatsOut d_bias, FloatsOut d_c0, FloatsOut d_h0, bool round) {
  const Shape n{from_end(hidden, 3), from_end(hidden, 2), from_end(kernel, 2), from_end(hidden, 1), round};
  const long layers = h0.element_count() / (n.B * n.H);
  const auto ids = ids_of(inputs, n.D);
  const float* x = ids.empty() ? static_cast<const float*>(inputs.untyped_data()) : nullptr;
  for (long i = 0; i < layers; i++) {
    const auto of = [&](auto& each) { return part(each, i, layers); };
    run_backward<C>(n, of(kernel), of(recurrent), x ? nullptr : &ids[i * n.T * n.B], x ? x + i * n.T * n.B * n.D : x,
                    of(h0), of(resets), of(hidden), of(saved), of(d_hidden), of(d_c), of(d_h),
                    {of(*d_x), of(*d_kernel), of(*d_recurrent), of(*d_bias), of(*d_c0), of(*d_h0)});
  }
  return ffi::Error::Success();
}

}  // namespace

#define JOIN(cell, name) charlstm_##cell##_##name
#define EXPAND(cell, name) JOIN(cell, name)
#define CALL(name) EXPAND(CHARLSTM_CELL, name)

// Weights, of so many bytes, of packed kernels with `rows` rows together, and floats that are saved of a row of a step.
extern "C" int64_t CALL(packed_size)(int64_t rows, int64_t H, int64_t bytes) {
  return bytes == 1 ? packed_size<C, int8_t>(rows, H) : packed_size<C, float>(rows, H);
}
extern "C" int64_t CALL(saved_floats)(int64_t H) { return padded<C>(H) * C::saved; }

#define ARGS4(a, b, c, d) .Arg<a>().Arg<b>().Arg<c>().Arg<d>()
#define RETS2 .Ret<Floats>().Ret<Floats>()
#define ROUND .Attr<bool>("round")
XLA_FFI_DEFINE_HANDLER_SYMBOL(CALL(pack), Pack,
                              ffi::Ffi::Bind() ARGS4(Floats, Floats, Floats, Floats).Ret<ffi::AnyBuffer>() ROUND);
XLA_FFI_DEFINE_HANDLER_SYMBOL(CALL(draw), Draw,
                              ffi::Ffi::Bind().Ctx<ffi::ThreadPool>() ARGS4(ffi::AnyBuffer, Floats, Floats, Floats)
                                  ARGS4(Numbers, Numbers, Floats, Numbers).Arg<Numbers>().Ret<Numbers>() RETS2 ROUND
                                  .Attr<int64_t>("width").Attr<int64_t>("threads"));
XLA_FFI_DEFINE_HANDLER_SYMBOL(CALL(forward), Forward,
                              ffi::Ffi::Bind() ARGS4(Floats, ffi::AnyBuffer, Floats, Floats)
                                  .Arg<Flags>() RETS2 RETS2 ROUND.Attr<int64_t>("width"));
XLA_FFI_DEFINE_HANDLER_SYMBOL(CALL(backward), Backward,
                              ffi::Ffi::Bind() ARGS4(Floats, Floats, ffi::AnyBuffer, Floats)
                                  .Arg<Flags>() ARGS4(Floats, Floats, Floats, Floats).Arg<Floats>() RETS2 RETS2 RETS2 ROUND);
