// The layers of a packed GPT-2: matrix products and attention for a CPU.
//
// A matrix is packed into panels of 32 columns. Its values are stored in words
// of 32 bits, each of which holds one float32, two bfloat16 or four int8 of
// one column, from consecutive rows:
//
//     matrix (n_out / 32, n_words, 32), with n_words = n_in / 1, 2 or 4
//
// A word of int4 holds eight values of one column. After each group of 32 rows
// come its 32 scales, in bfloat16:
//
//     matrix (n_out / 32, n_in / 32, 4 * 32 + 16)
//
// A product accumulates a tile, a few rows by 32 columns, in registers. With
// one row, it streams the matrix from memory once, in order, which is nearly
// all its cost. With many rows, a part of a panel stays in the L1 cache for
// all of them, and is fetched from memory during the part before.
//
// The key cache is such a matrix too, with a column for each position, and so
// is the value cache, with a row for each position. Attention is therefore two
// of the same products, with a softmax in between.

#include <float.h>
#include <math.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#ifdef __AVX512F__
#include <immintrin.h>
#endif
#ifdef _OPENMP
#include <omp.h>
#endif

// A tile of MR rows fills the vector registers: 32 of 16 lanes, or 16 of 8.
#if defined(__AVX512F__)
#define LANES 16  // 32-bit lanes of a vector
#define MR 12
#define FOR_TILE_SIZES(DO) DO(12) DO(8) DO(4) DO(2) DO(1)
#elif defined(__AVX__)
#define LANES 8
#define MR 3
#define FOR_TILE_SIZES(DO) DO(3) DO(2) DO(1)
#else
#define LANES 4
#define MR 3
#define FOR_TILE_SIZES(DO) DO(3) DO(2) DO(1)
#endif
#define PANEL 32                 // columns of a panel
#define VECTORS (PANEL / LANES)  // of a word of each column
#define STRIP 8         // words of a row that loops take at a time
#define KC 24           // strips of a panel that stay in L1 if rows are many
#define MC 192          // rows that are packed and multiplied as a block
#define GROUP 32        // rows of int4 with a scale: a strip
#define ZERO_POINT 128  // of int8 rows, which are stored as uint8
#define MASKED -1e30f   // the score of a key that the query must not see
#define INF_BITS 0x7f800000u
#define NAN_BITS 0x7fc00000u
#define LINE 64  // bytes of a cache line
#ifndef L1_BYTES  // of the data cache, if they are known
#define L1_BYTES 0
#endif
// Weights are read once. They are fetched to L1 alone, past the other caches,
// if it holds two parts of a panel, and otherwise to L2.
#define LOCALITY (L1_BYTES >= 2 * KC * STRIP * PANEL * 4 ? 0 : 2)
#define INLINE static inline __attribute__((always_inline))
#define UNROLL _Pragma("GCC unroll 32")  // keeps accumulators in registers
#ifndef BARRIER  // a test adds delays
#define BARRIER _Pragma("omp barrier")
#endif

typedef uint32_t vec_u32 __attribute__((vector_size(4 * LANES)));
typedef int32_t vec_i32 __attribute__((vector_size(4 * LANES)));
typedef float vec_f32 __attribute__((vector_size(4 * LANES)));

enum dtype { FLOAT32, BFLOAT16, INT8, INT4 };

// What happens to a product before or when it is stored.
enum epilogue { STORE, ADD, GELU_NEW, GELU, RELU };

struct matrix {
    const vec_u32 *panels;
    // A value for each column, in whole panels:
    const float *scales;         // int8: a column is its integers times this
    const int32_t *column_sums;  // int8: the sum of those integers
    const float *bias;
    long n_in, n_out;
};

struct layer {
    const float *ln_1_weight, *ln_1_bias, *ln_2_weight, *ln_2_bias;
    struct matrix attn_c_attn, attn_c_proj, mlp_c_fc, mlp_c_proj;
};

struct model {
    long dtype, n_layer, n_head, n_embd, n_inner, activation;
    float epsilon;
    const struct layer *layers;
};

// Keys and values: for each layer, sequence and head, keys
// (capacity / 32, words of D, 32) and values (D / 32, words of capacity, 32).
struct kv_cache {
    uint32_t *keys, *values;
    long length, capacity;  // in positions; capacity is a multiple of 32
    long per_layer;         // 1: each layer has its own; 0: all share one
};

// One of the threads that share the work, and its share of n items.
struct thread {
    long rank, count;
};

INLINE long begin(struct thread me, long n) { return n * me.rank / me.count; }
INLINE long end(struct thread me, long n) {
    return n * (me.rank + 1) / me.count;
}

#define FOR_SHARE(I, N) for (long I = begin(me, N); I < end(me, N); I++)

INLINE long min(long a, long b) { return a < b ? a : b; }
INLINE long max(long a, long b) { return a > b ? a : b; }
INLINE uint32_t max_u32(uint32_t a, uint32_t b) { return a > b ? a : b; }
INLINE long ceil_div(long n, long size) { return (n + size - 1) / size; }
INLINE long round_up(long n, long size) { return ceil_div(n, size) * size; }

// How many values a word of a row holds. Rows are int8 beside int4 matrices.
INLINE long per_word(int dtype) {
    return dtype == FLOAT32 ? 1 : dtype == BFLOAT16 ? 2 : 4;
}

// A row and a panel are padded with zeros to whole strips, so that loops have
// no tail. A strip of an int4 matrix is a group. There the strip of a row has
// two more words: the scale of its values, and -8 times their sum.
INLINE long n_strips(int dtype, long n) {
    return ceil_div(n, STRIP * per_word(dtype));
}
INLINE long strip_words(int dtype) {
    return dtype == INT4 ? STRIP + 2 : STRIP;
}
INLINE long strip_vectors(int dtype) {
    return dtype == INT4 ? (4 * PANEL + PANEL / 2) / LANES : STRIP * VECTORS;
}
INLINE long row_words(int dtype, long n) {
    return n_strips(dtype, n) * strip_words(dtype);
}

// The bits of |value|. As integers they are ordered like the magnitudes, and
// from INF_BITS on the value is not finite. The compiler assumes that floats
// are finite (-ffinite-math-only), and would drop a test of the floats.
INLINE uint32_t magnitude(float value) {
    uint32_t bits;
    memcpy(&bits, &value, sizeof bits);
    return bits & 0x7fffffff;
}

INLINE float as_float(uint32_t bits) {
    float value;
    memcpy(&value, &bits, sizeof value);
    return value;
}

// Round to nearest, ties to even.
INLINE uint16_t as_bfloat16(float value) {
    uint32_t bits;
    memcpy(&bits, &value, sizeof bits);
    return (uint16_t)((bits + 0x7fff + (bits >> 16 & 1)) >> 16);
}

// sums += w * x, for one word of some columns and one word of a row. (A type
// of its own for each kind of sum: with casts, GCC 12 keeps them in memory.)
INLINE vec_f32 multiply_add(int dtype, vec_f32 sums, vec_u32 w, uint32_t x) {
    if (dtype == FLOAT32) return sums + (vec_f32)w * as_float(x);
#ifdef __AVX512BF16__
    __m512i row = _mm512_set1_epi32((int)x);
    return (vec_f32)_mm512_dpbf16_ps((__m512)sums, (__m512bh)w, (__m512bh)row);
#else  // a bfloat16 is the upper half of a float32
    const uint32_t upper = 0xffff0000;
    return sums + (vec_f32)(w << 16) * as_float(x << 16) +
           (vec_f32)(w & upper) * as_float(x & upper);
#endif
}

// sums += w * x, for words of four uint8 and four int8.
INLINE vec_i32 multiply_add_int8(vec_i32 sums, vec_u32 uint8, vec_u32 int8) {
#ifdef __AVX512VNNI__
    return (vec_i32)_mm512_dpbusd_epi32((__m512i)sums, (__m512i)uint8,
                                        (__m512i)int8);
#else
    for (int byte = 0; byte < 4; byte++)
        sums += (vec_i32)(uint8 >> (8 * byte) & 255) *
                ((vec_i32)(int8 << (24 - 8 * byte)) >> 24);
    return sums;
#endif
}

// The word of a strip of a panel that word i of a row is multiplied by. A word
// of int4 is two of uint8, with values 8 too large: its low and high nibbles.
INLINE vec_u32 load_word(int dtype, const vec_u32 *strip, int i, int v) {
    if (dtype != INT4) return strip[i * VECTORS + v];
    vec_u32 nibbles = strip[i / 2 * VECTORS + v];
    return (i % 2 ? nibbles >> 4 : nibbles) & 0x0f0f0f0f;
}

// The scales of a group: the columns of the first half of a panel are in the
// low halves of its words, the others in the high halves.
INLINE vec_f32 load_scales(const vec_u32 *scales, int v) {
    const uint32_t upper = 0xffff0000;
    vec_u32 both = scales[v % (VECTORS / 2)];
    return (vec_f32)(v < VECTORS / 2 ? both << 16 : both & upper);
}

// sums += x W, for a tile of n_rows rows and n strips of one panel. Word i of
// row r is x[i * n_rows + r]. With few rows, each sum is accumulated in
// several registers in turn, so that no addition waits for the last one. With
// each strip, `n_ahead` cache lines are fetched from `ahead` on.
INLINE void microkernel(int dtype, int n_rows, const uint32_t *x,
                        const vec_u32 *panel, long n, const char *ahead,
                        long n_ahead, vec_f32 *sums) {
    const int n_chains = n_rows * VECTORS > 4   ? 1
                         : n_rows * VECTORS > 2 ? 2
                                                : 4;
    const int n_sums = n_rows * VECTORS, n_acc = n_sums * n_chains;
    vec_f32 acc[MR * VECTORS * 4];
    vec_i32 acc_int[MR * VECTORS * 4];
    UNROLL
    for (int i = 0; i < n_acc; i++) acc[i] = (vec_f32){0};
    UNROLL
    for (int i = 0; i < n_acc; i++) acc_int[i] = (vec_i32){0};
    for (; n > 0; n--) {
        const uint32_t *scales = x + STRIP * n_rows;  // of int4
        if (dtype == INT4)
            UNROLL
            for (int i = 0; i < n_acc; i++)
                acc_int[i] =
                    (vec_i32){0} +
                    (i < n_sums ? (int32_t)scales[n_rows + i / VECTORS] : 0);
        long n_fetched = 0;
#pragma GCC unroll 1
        for (int i = 0; i < STRIP; i += n_chains) {
            // A few at a time: all at once would wait for each other.
            for (; n_fetched * STRIP < n_ahead * (i + n_chains); n_fetched++) {
                __builtin_prefetch(ahead, 0, LOCALITY);
                ahead += LINE;
            }
            UNROLL
            for (int chain = 0; chain < n_chains; chain++) {
                vec_u32 w[VECTORS];
                UNROLL
                for (int v = 0; v < VECTORS; v++)
                    w[v] = load_word(dtype, panel, i + chain, v);
                UNROLL
                for (int r = 0; r < n_rows; r++) {
                    uint32_t word = x[(i + chain) * n_rows + r];
                    UNROLL
                    for (int v = 0; v < VECTORS; v++) {
                        int at = chain * n_sums + r * VECTORS + v;
                        if (dtype == INT8)
                            acc_int[at] = multiply_add_int8(
                                acc_int[at], (vec_u32){0} + word, w[v]);
                        else if (dtype == INT4)
                            acc_int[at] = multiply_add_int8(
                                acc_int[at], w[v], (vec_u32){0} + word);
                        else
                            acc[at] = multiply_add(dtype, acc[at], w[v], word);
                    }
                }
            }
        }
        if (dtype == INT4) {
            UNROLL
            for (int i = n_sums; i < n_acc; i++)
                acc_int[i % n_sums] += acc_int[i];
            UNROLL
            for (int i = 0; i < n_sums; i++) {
                int r = i / VECTORS, v = i % VECTORS;
                sums[i] += __builtin_convertvector(acc_int[i], vec_f32) *
                           (load_scales(panel + 4 * VECTORS, v) *
                            as_float(scales[r]));
            }
        }
        panel += strip_vectors(dtype);
        x += strip_words(dtype) * n_rows;
    }
    if (dtype == INT4) return;
    UNROLL
    for (int i = 0; i < n_acc; i++) {
        if (dtype == INT8)
            sums[i % n_sums] =
                (vec_f32)((vec_i32)sums[i % n_sums] + acc_int[i]);
        else
            sums[i % n_sums] += acc[i];
    }
}

// Rows are multiplied in tiles, and are stored tile by tile: the largest tile
// that fits comes first.
INLINE long tile_rows(long n_left) {
#define RETURN_IF_IT_FITS(SIZE) if (n_left >= SIZE) return SIZE;
    FOR_TILE_SIZES(RETURN_IF_IT_FITS)
    return 0;
}

// sums += x W, for any number of rows of n strips and one panel.
INLINE void all_tiles(int dtype, long n_rows, const uint32_t *x, long n,
                      const vec_u32 *panel, vec_f32 *sums) {
    long n_tiles = 0, n_tile;
    for (long r = 0; r < n_rows; r += tile_rows(n_rows - r)) n_tiles++;
    for (long k = 0; k < n; k += KC) {
        long n_part = min(KC, n - k);
        const vec_u32 *part = panel + k * strip_vectors(dtype);
        // Meanwhile the next part is fetched from memory.
        const char *ahead = (const char *)(part + KC * strip_vectors(dtype));
        long n_lines = strip_vectors(dtype) * sizeof *part / LINE;
        long n_ahead = ceil_div(n_lines, n_tiles);
        for (long r = 0; r < n_rows; r += n_tile) {
            n_tile = tile_rows(n_rows - r);
            const uint32_t *tile =
                x + (r * n + k * n_tile) * strip_words(dtype);
            switch (n_tile) {
#define CASE(SIZE)                                                            \
    case SIZE:                                                                \
        microkernel(dtype, SIZE, tile, part, n_part, ahead, n_ahead,          \
                    sums + r * VECTORS);                                      \
        break;
                FOR_TILE_SIZES(CASE)
            }
            ahead += n_part * n_ahead * LINE;
        }
    }
}

// Only this function has code for each dtype: everything above is inlined into
// it as constants.
static void panel_product(int dtype, long n_rows, const uint32_t *x, long n,
                          const vec_u32 *panel, vec_f32 *sums) {
    if (dtype == FLOAT32) all_tiles(FLOAT32, n_rows, x, n, panel, sums);
    if (dtype == BFLOAT16) all_tiles(BFLOAT16, n_rows, x, n, panel, sums);
    if (dtype == INT8) all_tiles(INT8, n_rows, x, n, panel, sums);
    if (dtype == INT4) all_tiles(INT4, n_rows, x, n, panel, sums);
}

// A whole vector, nearly always, or the columns that are left at the end.
INLINE vec_f32 load_some(const float *src, long n) {
    vec_f32 some = {0};
    if (n >= LANES)
        memcpy(&some, src, sizeof some);
    else
        memcpy(&some, src, n * sizeof *src);
    return some;
}

INLINE void store_some(vec_f32 some, float *dst, long n) {
    if (n >= LANES)
        memcpy(dst, &some, sizeof some);
    else
        memcpy(dst, &some, n * sizeof *dst);
}

INLINE vec_f32 clamp_min(vec_f32 x, float lowest) {
    for (int i = 0; i < LANES; i++) x[i] = fmaxf(x[i], lowest);
    return x;
}

INLINE vec_f32 clamp_max(vec_f32 x, float largest) {
    for (int i = 0; i < LANES; i++) x[i] = fminf(x[i], largest);
    return x;
}

// exp(x), with a relative error of a few millionths; 0 for large negative x.
// e^x = 2^n e^r, with e^r by its Taylor polynomial.
INLINE vec_f32 exponential(vec_f32 x) {
    vec_f32 power = clamp_min(x * 1.44269504f + 127.5f, 0.5f);
    vec_i32 biased =
        __builtin_convertvector(clamp_max(power, 254.5f), vec_i32);
    x -= (__builtin_convertvector(biased, vec_f32) - 127) * 0.693147181f;
    x = clamp_min(x, -1);
    vec_f32 sum = 1.66666667e-1f +
                  x * (4.16666667e-2f +
                       x * (8.33333333e-3f + x * 1.38888889e-3f));
    return (1 + x * (1 + x * (0.5f + x * sum))) * (vec_f32)(biased << 23);
}

INLINE vec_f32 activate(int epilogue, vec_f32 x) {
    if (epilogue == GELU_NEW)  // (1 + tanh u) / 2 = 1 / (1 + e^-2u)
        return x / (1 + exponential(x * (-1.5957691216f -
                                         0.0713548162726f * x * x)));
    if (epilogue == RELU) return clamp_min(x, 0);
    for (int i = 0; i < LANES; i++)
        x[i] *= 0.5f * (1 + erff(x[i] * 0.70710678f));
    return x;
}

// The workspace of a call. The first four buffers are shared by all threads,
// unless there is a single row; of the others each thread has its own.
struct workspace {
    uint32_t *rows;     // (n_rows, width), packed
    float *row_scales;  // (n_rows,)
    float *hidden;      // (N, 3 C) queries, keys, values; or (n_rows, I),
                        // padded
    float *mixed;       // (N, C), the output of attention
    float *scores;      // (n_scores,), (MR, S) and packed rows
    vec_f32 *sums;      // (n_rows, PANEL)
    float *row;         // (width,)
    uint32_t *words;    // (width,), a packed row
    long n_rows;        // of a block, at most MC
    long width;         // the most values of a row
    long n_scores;
    int complete;  // whether there was memory for all
};

// Round n values to int8, from -127 to 127, plus a zero point, and return the
// scale. If a value is not finite, the scale is NaN, which makes all products
// with them NaN.
static float round_to_int8(const float *x, long n, int zero_point,
                           uint8_t *bytes) {
    uint32_t bits = magnitude(1e-30f);
    for (long i = 0; i < n; i++) bits = max_u32(bits, magnitude(x[i]));
    if (bits >= INF_BITS) {
        memset(bytes, zero_point, n);
        return as_float(NAN_BITS);
    }
    float largest = as_float(bits), inverse = 127 / largest;
    for (long i = 0; i < n; i++)
        bytes[i] = (uint8_t)(int)(nearbyintf(x[i] * inverse) + zero_point);
    return largest / 127;
}

// Convert a row to words, padded with zeros, and return its scale. int8 has
// one scale for each row, and is stored as uint8 with a zero point, because
// the instructions multiply uint8 by int8. Beside int4 weights, which are
// stored as uint8, each strip of a row has a scale of its own.
static float pack_row(int dtype, const float *x, long n, uint32_t *row) {
    memset(row, 0, row_words(dtype, n) * sizeof *row);
    if (dtype == FLOAT32) memcpy(row, x, n * sizeof *x);
    if (dtype == BFLOAT16)
        for (long i = 0; i < n; i++) ((uint16_t *)row)[i] = as_bfloat16(x[i]);
    if (dtype == INT8) return round_to_int8(x, n, ZERO_POINT, (uint8_t *)row);
    if (dtype == INT4)
        for (long at = 0; at < n; at += GROUP, row += strip_words(INT4)) {
            float scale = round_to_int8(x + at, min(GROUP, n - at), 0,
                                        (uint8_t *)row);
            int32_t sum = 0;
            for (long i = 0; i < GROUP; i++) sum += ((int8_t *)row)[i];
            memcpy(row + STRIP, &scale, sizeof scale);
            row[STRIP + 1] = (uint32_t)(-8 * sum);
        }
    return 1;
}

// Store row r of a block of n_rows where its tile has it.
static void store_row(const uint32_t *row, long n_words, long r, long n_rows,
                      uint32_t *block) {
    long first = 0, n_tile;
    while (first + (n_tile = tile_rows(n_rows - first)) <= r) first += n_tile;
    uint32_t *tile = block + first * n_words + (r - first);
    for (long i = 0; i < n_words; i++) tile[i * n_tile] = row[i];
}

// This thread's columns of y = epilogue(x W + b). `x` are the rows of a block,
// packed; rows of y are y_stride apart; `sums` is this thread's, with room for
// n_rows words of a panel.
static void gemm(int dtype, struct thread me, const struct matrix *m,
                 const uint32_t *x, const float *row_scales, float *y,
                 long y_stride, long n_rows, int epilogue, vec_f32 *sums) {
    long n = n_strips(dtype, m->n_in);
    FOR_SHARE(panel, ceil_div(m->n_out, PANEL)) {
        memset(sums, 0, n_rows * VECTORS * sizeof *sums);
        panel_product(dtype, n_rows, x, n,
                      m->panels + panel * n * strip_vectors(dtype), sums);
        for (int v = 0; v < VECTORS; v++) {
            long at = panel * PANEL + v * LANES;
            long n_columns = min(LANES, m->n_out - at);
            if (n_columns <= 0) break;
            vec_f32 scales, bias;
            vec_i32 zero_point;  // what the rows' zero point adds
            memcpy(&scales, m->scales + at, sizeof scales);
            memcpy(&bias, m->bias + at, sizeof bias);
            memcpy(&zero_point, m->column_sums + at, sizeof zero_point);
            for (long r = 0; r < n_rows; r++) {
                float *dst = y + r * y_stride + at;
                vec_f32 out = sums[r * VECTORS + v];
                if (dtype == INT8)
                    out = __builtin_convertvector(
                              (vec_i32)out - ZERO_POINT * zero_point,
                              vec_f32) *
                          (scales * row_scales[r]);
                out += bias;
                if (epilogue == ADD)
                    out += load_some(dst, n_columns);
                else if (epilogue != STORE)
                    out = activate(epilogue, out);
                store_some(out, dst, n_columns);
            }
        }
    }
}

static void layer_norm(const float *x, const float *weight, const float *bias,
                       float epsilon, long n, float *out) {
    float mean = 0, variance = 0;
    for (long i = 0; i < n; i++) mean += x[i];
    mean /= n;
    for (long i = 0; i < n; i++)
        variance += (x[i] - mean) * (x[i] - mean);
    float scale = 1 / sqrtf(variance / n + epsilon);
    for (long i = 0; i < n; i++)
        out[i] = (x[i] - mean) * scale * weight[i] + bias[i];
}

// Append one head's key and value at a position to the cache: the key as a
// column of `keys`, the value as a row of `values`. `column` is this thread's,
// with room for a key's words.
static void append_to_cache(int dtype, const float *key, const float *value,
                            uint32_t *keys, uint32_t *values, long position,
                            long capacity, long head_size, uint32_t *column) {
    long key_words = row_words(dtype, head_size);
    pack_row(dtype, key, head_size, column);
    keys += position / PANEL * key_words * PANEL + position % PANEL;
    for (long i = 0; i < key_words; i++) keys[i * PANEL] = column[i];
    // Each panel of `values` has a word of this position for 32 of the values.
    long value_words = capacity / per_word(dtype);
    values += position / per_word(dtype) * PANEL;
    for (long at = 0; at < head_size; at += PANEL) {
        long n = min(PANEL, head_size - at);
        uint32_t *words = values + at * value_words;
        if (dtype == FLOAT32)
            memcpy(words, value + at, n * sizeof *words);
        else
            for (long i = 0; i < n; i++)
                ((uint16_t *)words)[2 * i + position % 2] =
                    as_bfloat16(value[at + i]);
    }
}

// Softmax of one query's scores: of keys 0 to n_visible - 1, without those
// that the mask excludes. If a score is not finite, nor is the result.
static void masked_softmax(float *scores, long n_scores, long n_visible,
                           const uint8_t *mask) {
    for (long s = 0; mask && s < n_visible - 1; s++)  // sees itself
        if (!mask[s]) scores[s] = MASKED;
    for (long s = n_visible; s < n_scores; s++) scores[s] = MASKED;
    float largest = MASKED, total = 0;
    uint32_t bits = 0;
    for (long s = 0; s < n_scores; s++) {
        largest = fmaxf(largest, scores[s]);
        bits = max_u32(bits, magnitude(scores[s]));
    }
    for (long s = 0; s < n_scores; s += LANES) {
        vec_f32 some = exponential(load_some(scores + s, LANES) - largest);
        store_some(some, scores + s, LANES);
    }
    for (long s = 0; s < n_scores; s++) total += scores[s];
    float scale = bits >= INF_BITS ? as_float(NAN_BITS) : 1 / total;
    for (long s = 0; s < n_scores; s++) scores[s] *= scale;
}

// Attention of one head, for up to MR consecutive queries, `first` the
// position of the first. `mask` has 1 for a token and 0 for padding; NULL: no
// padding.
static void attend(int dtype, const float *q, long q_stride, float *out,
                   long out_stride, const uint32_t *keys,
                   const uint32_t *values, const uint8_t *mask, long first,
                   long n_queries, long capacity, long head_size,
                   struct workspace work) {
    long n_scores = round_up(first + n_queries, PANEL);
    long key_words = row_words(dtype, head_size);
    long value_words = n_scores / per_word(dtype);
    uint32_t *rows = (uint32_t *)(work.scores + MR * n_scores);
    vec_f32 sums[MR * VECTORS];
    for (long r = 0; r < n_queries; r++) {
        for (long i = 0; i < head_size; i++)
            work.row[i] = q[r * q_stride + i] / sqrtf((float)head_size);
        pack_row(dtype, work.row, head_size, work.words);
        store_row(work.words, key_words, r, n_queries, rows);
    }
    for (long at = 0; at < n_scores; at += PANEL) {
        memset(sums, 0, sizeof sums);
        panel_product(dtype, n_queries, rows, n_strips(dtype, head_size),
                      (const vec_u32 *)(keys + at * key_words), sums);
        for (long r = 0; r < n_queries; r++)
            memcpy(work.scores + r * n_scores + at, sums + r * VECTORS,
                   PANEL * sizeof(float));
    }
    for (long r = 0; r < n_queries; r++) {
        float *weights = work.scores + r * n_scores;
        masked_softmax(weights, n_scores, first + r + 1, mask);
        pack_row(dtype, weights, n_scores, work.words);
        store_row(work.words, value_words, r, n_queries, rows);
    }
    for (long at = 0; at < head_size; at += PANEL) {
        memset(sums, 0, sizeof sums);
        panel_product(
            dtype, n_queries, rows, n_strips(dtype, n_scores),
            (const vec_u32 *)(values + at * (capacity / per_word(dtype))),
            sums);
        long n_bytes = min(PANEL, head_size - at) * sizeof(float);
        for (long r = 0; r < n_queries; r++)
            memcpy(out + r * out_stride + at, sums + r * VECTORS, n_bytes);
    }
}

// Rows of I floats would often be a multiple of 4 KiB apart, and would evict
// each other from the L1 cache.
INLINE long inner_stride(long n_inner) {
    return round_up(n_inner, LINE) + LINE / 4;
}

// Pack a block of rows of `width` floats, x_stride apart, normalized first if
// there is a norm. A single row is packed by each thread for itself, which
// takes less time than to wait for one of them.
static void pack_rows(int dtype, struct thread me, const float *x,
                      long x_stride, long n_rows, long width,
                      const float *ln_weight, const float *ln_bias,
                      float epsilon, struct workspace work) {
    long n_words = row_words(dtype, width);
    if (work.n_rows == 1) me = (struct thread){0, 1};
    FOR_SHARE(r, n_rows) {
        const float *row = x + r * x_stride;
        if (ln_weight) {
            layer_norm(row, ln_weight, ln_bias, epsilon, width, work.row);
            row = work.row;
        }
        work.row_scales[r] = pack_row(dtype, row, width, work.words);
        store_row(work.words, n_words, r, n_rows, work.rows);
    }
    if (work.n_rows > 1) {
        BARRIER
    }
}

static void forward(struct thread me, const struct model *m, float *x,
                    struct kv_cache cache, long n_sequences, long n_new,
                    const uint8_t *mask, struct workspace work) {
    const int dtype = (int)m->dtype;
    const int cache_dtype = dtype == FLOAT32 ? FLOAT32 : BFLOAT16;
    const long C = m->n_embd, I = m->n_inner, H = m->n_head, D = C / H;
    const long n_rows = n_sequences * n_new, capacity = cache.capacity;
    const long n_keys = cache.length + n_new;
    const long I_stride = inner_stride(I);
    // Words of a head's cache.
    const long keys_stride = capacity * row_words(cache_dtype, D);
    const long values_stride =
        round_up(D, PANEL) * (capacity / per_word(cache_dtype));
    for (const struct layer *layer = m->layers;
         layer < m->layers + m->n_layer; layer++) {
        // Queries, keys and values.
        for (long at = 0; at < n_rows; at += MC) {
            long n = min(MC, n_rows - at);
            pack_rows(dtype, me, x + at * C, C, n, C, layer->ln_1_weight,
                      layer->ln_1_bias, m->epsilon, work);
            gemm(dtype, me, &layer->attn_c_attn, work.rows, work.row_scales,
                 work.hidden + at * 3 * C, 3 * C, n, STORE, work.sums);
            BARRIER
        }
        FOR_SHARE(head, n_sequences * H) {
            const float *k = work.hidden + head / H * n_new * 3 * C + C +
                             head % H * D;
            for (long t = 0; t < n_new; t++, k += 3 * C)
                append_to_cache(cache_dtype, k, k + C,
                                cache.keys + head * keys_stride,
                                cache.values + head * values_stride,
                                cache.length + t, capacity, D, work.words);
        }
        BARRIER
        // Attention. Later queries see more keys, so the threads take tiles in
        // turn, not in blocks.
        long n_tiles = ceil_div(n_new, MR);
        for (long i = me.rank; i < n_sequences * H * n_tiles; i += me.count) {
            long head = i / n_tiles, t = i % n_tiles * MR;
            long row = head / H * n_new + t;
            attend(cache_dtype, work.hidden + row * 3 * C + head % H * D,
                   3 * C, work.mixed + row * C + head % H * D, C,
                   cache.keys + head * keys_stride,
                   cache.values + head * values_stride,
                   mask ? mask + head / H * n_keys : NULL, cache.length + t,
                   min(MR, n_new - t), capacity, D, work);
        }
        BARRIER
        for (long at = 0; at < n_rows; at += MC) {
            long n = min(MC, n_rows - at);
            pack_rows(dtype, me, work.mixed + at * C, C, n, C, NULL, NULL, 0,
                      work);
            gemm(dtype, me, &layer->attn_c_proj, work.rows, work.row_scales,
                 x + at * C, C, n, ADD, work.sums);
            BARRIER
            // The feed-forward network.
            pack_rows(dtype, me, x + at * C, C, n, C, layer->ln_2_weight,
                      layer->ln_2_bias, m->epsilon, work);
            gemm(dtype, me, &layer->mlp_c_fc, work.rows, work.row_scales,
                 work.hidden, I_stride, n, (int)m->activation, work.sums);
            BARRIER
            pack_rows(dtype, me, work.hidden, I_stride, n, I, NULL, NULL, 0,
                      work);
            gemm(dtype, me, &layer->mlp_c_proj, work.rows, work.row_scales,
                 x + at * C, C, n, ADD, work.sums);
            BARRIER
        }
        cache.keys += cache.per_layer * n_sequences * H * keys_stride;
        cache.values += cache.per_layer * n_sequences * H * values_stride;
    }
}

// Copy up to 32 rows of up to 32 columns, with `offsets` subtracted from every
// column, and zeros around them.
static void copy_block(const float *weight, long row_stride,
                       long column_stride, const float *offsets, long n_rows,
                       long n_columns, float block[GROUP][PANEL]) {
    memset(block, 0, GROUP * sizeof *block);
    if (column_stride == 1) {  // in the order in which they lie in memory
        for (long i = 0; i < n_rows; i++)
            for (long c = 0; c < n_columns; c++)
                block[i][c] = weight[i * row_stride + c] - offsets[i];
    } else {
        for (long c = 0; c < n_columns; c++)
            for (long i = 0; i < n_rows; i++)
                block[i][c] =
                    weight[i * row_stride + c * column_stride] - offsets[i];
    }
}

// Round a group of each column to int4. The value of the largest magnitude
// becomes -8, so the scale is -1/8 of it, rounded to bfloat16.
static void pack_group(float block[GROUP][PANEL], uint32_t *panel) {
    float low[PANEL] = {0}, high[PANEL] = {0}, scales[PANEL];
    for (long i = 0; i < GROUP; i++)
        for (long c = 0; c < PANEL; c++) {
            low[c] = fminf(low[c], block[i][c]);
            high[c] = fmaxf(high[c], block[i][c]);
        }
    for (long c = 0; c < PANEL; c++) {
        float extreme = high[c] > -low[c] ? high[c] : low[c];
        uint32_t bits = as_bfloat16(extreme / -8);
        if (magnitude(as_float(bits << 16)) < magnitude(FLT_MIN))
            bits = as_bfloat16(1);  // a group of zeros
        scales[c] = as_float(bits << 16);
        panel[4 * PANEL + c % (PANEL / 2)] |= bits << (c / (PANEL / 2) * 16);
    }
    for (long i = 0; i < GROUP; i++)
        for (long c = 0; c < PANEL; c++) {
            float value = nearbyintf(block[i][c] / scales[c]);
            value = fmaxf(fminf(value, 7), -8) + 8;
            panel[i / 8 * PANEL + c] |= (uint32_t)value
                                        << (8 * (i % 4) + i % 8 / 4 * 4);
        }
}

// Pack up to 32 columns into a panel of zeros. For int8, each column has a
// scale of its own, with which its largest value becomes 127 or -127. Returns
// the magnitude of the largest value, which may not be finite.
INLINE uint32_t pack_panel(int dtype, const float *weight, long row_stride,
                           long column_stride, const float *offsets, long n_in,
                           long n_columns, uint32_t *panel, float *scales,
                           int32_t *column_sums) {
    float block[GROUP][PANEL];
    uint32_t bits[PANEL] = {0}, largest = 0;
    const long size = per_word(dtype);
    // int8: find the scales first.
    for (int pass = dtype == INT8 ? 0 : 1; pass < 2; pass++) {
        for (long at = 0; at < n_in; at += GROUP) {
            copy_block(weight + at * row_stride, row_stride, column_stride,
                       offsets + at, min(GROUP, n_in - at), n_columns, block);
            for (long i = 0; i < GROUP; i++)
                for (long c = 0; c < PANEL; c++)
                    bits[c] = max_u32(bits[c], magnitude(block[i][c]));
            if (pass == 0) continue;
            if (dtype == INT4) {
                pack_group(block, panel);
                panel += strip_vectors(INT4) * LANES;
                continue;
            }
            for (long i = 0; i < min(GROUP, n_in - at);
                 i += size, panel += PANEL)
                for (long c = 0; c < PANEL; c++) {
                    uint32_t word = 0;
                    for (long k = 0; k < size; k++) {
                        float value = block[i + k][c];
                        if (dtype == FLOAT32) {
                            memcpy(&word, &value, sizeof word);
                        } else if (dtype == BFLOAT16) {
                            word |= (uint32_t)as_bfloat16(value) << 16 * k;
                        } else {
                            int32_t integer =
                                (int32_t)nearbyintf(value / scales[c]);
                            column_sums[c] += integer;
                            word |= (uint32_t)(integer & 255) << 8 * k;
                        }
                    }
                    panel[c] = word;
                }
        }
        for (long c = 0; c < PANEL; c++) {
            float scale = as_float(bits[c]) / 127;
            largest = max_u32(largest, bits[c]);
            if (pass == 0) {
                largest = max_u32(largest, magnitude(127 * scale));
                scales[c] = scale >= FLT_MIN ? scale : 1;
            }
        }
        if (largest >= INF_BITS) break;
    }
    return largest;
}

static struct thread this_thread(void) {
#ifdef _OPENMP
    return (struct thread){omp_get_thread_num(), omp_get_num_threads()};
#else
    return (struct thread){0, 1};
#endif
}

// Pack a matrix, `offsets` (n_in) subtracted from every column. The strides
// are in floats. `panels`, `scales` and `column_sums` must hold zeros. Returns
// 0, or 1 if a value is not finite, before or after rounding.
int pack(int dtype, const float *weight, long row_stride, long column_stride,
         const float *offsets, long n_in, long n_out, uint32_t *panels,
         float *scales, int32_t *column_sums, long n_threads) {
    long n_vectors = n_strips(dtype, n_in) * strip_vectors(dtype);
    // What is rounded to bfloat16, the scales of int4 too, may be rounded up.
    int rounds_up = dtype == BFLOAT16 || dtype == INT4;
    uint32_t limit = rounds_up ? INF_BITS - 0x8000 : INF_BITS;
    int failed = 0;
#pragma omp parallel num_threads(n_threads) reduction(| : failed)
    {
        struct thread me = this_thread();
        FOR_SHARE(panel, ceil_div(n_out, PANEL)) {
            long at = panel * PANEL;
            uint32_t largest = 0;
#define PACK(DTYPE)                                                           \
    if (dtype == DTYPE)                                                       \
        largest = pack_panel(DTYPE, weight + at * column_stride, row_stride,  \
                             column_stride, offsets, n_in,                    \
                             min(PANEL, n_out - at),                          \
                             panels + panel * n_vectors * LANES, scales + at, \
                             column_sums + at);
            PACK(FLOAT32) PACK(BFLOAT16) PACK(INT8) PACK(INT4)
            failed |= largest >= limit;
        }
    }
    return failed;
}

// Allocate what all threads share, and what each has for itself.
static struct workspace allocate(long n_rows, long width, long n_hidden,
                                 long n_mixed, long n_keys, long n_threads) {
    struct workspace work = {
        .n_rows = min(n_rows, MC),
        .width = round_up(max(width, n_keys), GROUP),
        .n_scores = MR * (n_keys + max(n_keys, round_up(width, GROUP))),
    };
    // A single row is packed by each thread; see `pack_rows`.
    long n_packed = work.n_rows == 1 ? n_threads : work.n_rows;
    work.rows = malloc(n_packed * work.width * sizeof *work.rows);
    work.row_scales = malloc(n_packed * sizeof *work.row_scales);
    work.hidden = malloc(n_hidden * sizeof *work.hidden);
    work.mixed = malloc(n_mixed * sizeof *work.mixed);
    work.scores = malloc(n_threads * work.n_scores * sizeof *work.scores);
    work.sums = aligned_alloc(LINE, n_threads * work.n_rows * PANEL *
                                        sizeof(float));
    work.row = malloc(n_threads * work.width * sizeof *work.row);
    work.words = malloc(n_threads * work.width * sizeof *work.words);
    work.complete = work.rows && work.row_scales && work.hidden &&
                    work.mixed && work.scores && work.sums && work.row &&
                    work.words;
    return work;
}

static struct workspace of_thread(struct workspace work, struct thread me) {
    if (work.n_rows == 1) {
        work.rows += me.rank * work.width;
        work.row_scales += me.rank;
    }
    work.scores += me.rank * work.n_scores;
    work.sums += me.rank * work.n_rows * VECTORS;
    work.row += me.rank * work.width;
    work.words += me.rank * work.width;
    return work;
}

static void release(struct workspace work) {
    free(work.rows), free(work.row_scales), free(work.hidden);
    free(work.mixed), free(work.scores), free(work.sums), free(work.row);
    free(work.words);
}

// y = x W + b, for x (n_rows, n_in) and y (n_rows, n_out), both float32.
// Returns 0, or 1 if there is no memory.
int matmul(int dtype, const struct matrix *m, const float *x, float *y,
           long n_rows, long n_threads) {
    struct workspace shared = allocate(n_rows, m->n_in, 1, 1, 0, n_threads);
#pragma omp parallel num_threads(n_threads) if (shared.complete)
    for (long at = 0; shared.complete && at < n_rows; at += MC) {
        struct thread me = this_thread();
        struct workspace work = of_thread(shared, me);
        long n = min(MC, n_rows - at);
        pack_rows(dtype, me, x + at * m->n_in, m->n_in, n, m->n_in, NULL,
                  NULL, 0, work);
        gemm(dtype, me, m, work.rows, work.row_scales, y + at * m->n_out,
             m->n_out, n, STORE, work.sums);
        BARRIER
    }
    release(shared);
    return !shared.complete;
}

// Run all layers: x (B, T, C), the residual stream, is changed in place, and
// the new keys and values are appended to the cache. `mask` is (B, length +
// T), 1 for a token and 0 for padding; NULL: no padding. Returns 0, or 1 if
// there is no memory.
int run_layers(const struct model *m, float *x, struct kv_cache *cache,
               long n_sequences, long n_new, const uint8_t *mask,
               long n_threads) {
    const long C = m->n_embd, I = m->n_inner, n_rows = n_sequences * n_new;
    const long n_keys = round_up(cache->length + n_new, PANEL);
    struct workspace shared =
        allocate(n_rows, max(C, I),
                 max(n_rows * 3 * C, min(n_rows, MC) * inner_stride(I)),
                 n_rows * C, n_keys, n_threads);
#pragma omp parallel num_threads(n_threads) if (shared.complete)
    if (shared.complete) {
        struct thread me = this_thread();
        forward(me, m, x, *cache, n_sequences, n_new, mask,
                of_thread(shared, me));
    }
    release(shared);
    return !shared.complete;
}
