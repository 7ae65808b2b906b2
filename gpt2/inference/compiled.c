// The layers of a packed GPT-2: matrix products and attention for a CPU.
//
// A matrix is packed into panels of 16 columns. Its values are stored in words
// of 32 bits, each of which holds one float32, two bfloat16 or four int8 of
// one column, from consecutive rows:
//
//     matrix (n_out / 16, n_words, 16), with n_words = n_in / 1, 2 or 4
//
// So one vector register loads a word of each of the 16 columns, and another
// accumulates the 16 sums. A product streams the matrix from memory once, in
// order, for up to eight rows of x. With one row, that is nearly all its cost.
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

#define LANES 16        // columns of a panel, 32-bit lanes of a vector
#define MR 8            // rows of a register tile
#define KC 256          // words of a panel that stay in L1 if rows are many
#define MC 256          // rows that are packed and multiplied as a block
#define PREFETCH 128    // prefetch distance, in vectors
#define ZERO_POINT 128  // of int8 rows, which are stored as uint8
#define MASKED -1e30f   // the score of a key that the query must not see
#define INF_BITS 0x7f800000u
#define NAN_BITS 0x7fc00000u
#define INLINE static inline __attribute__((always_inline))
#define UNROLL _Pragma("GCC unroll 8")  // keeps accumulators in registers
#ifndef BARRIER  // a test adds delays
#define BARRIER _Pragma("omp barrier")
#endif

typedef uint32_t vec_u32 __attribute__((vector_size(4 * LANES)));
typedef int32_t vec_i32 __attribute__((vector_size(4 * LANES)));
typedef float vec_f32 __attribute__((vector_size(4 * LANES)));

enum dtype { FLOAT32, BFLOAT16, INT8 };

// What happens to a product before or when it is stored.
enum epilogue { STORE, ADD, GELU_NEW, GELU, RELU };

struct matrix {
    const vec_u32 *panels;
    // One vector for each panel:
    const vec_f32 *scales;       // int8: a column is its integers times this
    const vec_i32 *column_sums;  // int8: the sum of those integers
    const vec_f32 *bias;
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
// (capacity / 16, words of D, 16) and values (D / 16, words of capacity, 16).
struct kv_cache {
    uint32_t *keys, *values;
    long length, capacity;  // in positions; capacity is a multiple of 16
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
INLINE long per_word(int dtype) {
    return dtype == FLOAT32 ? 1 : dtype == BFLOAT16 ? 2 : 4;
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

// sums += w * x, for one word of 16 columns and one word of a row.
INLINE vec_u32 multiply_add(int dtype, vec_u32 sums, vec_u32 w, uint32_t x) {
    if (dtype == FLOAT32)
        return (vec_u32)((vec_f32)sums + (vec_f32)w * as_float(x));
    if (dtype == BFLOAT16) {
#ifdef __AVX512BF16__
        __m512i row = _mm512_set1_epi32((int)x);
        return (vec_u32)_mm512_dpbf16_ps((__m512)sums, (__m512bh)w,
                                         (__m512bh)row);
#else  // a bfloat16 is the upper half of a float32
        const uint32_t upper = 0xffff0000;
        return (vec_u32)((vec_f32)sums +
                         (vec_f32)(w << 16) * as_float(x << 16) +
                         (vec_f32)(w & upper) * as_float(x & upper));
#endif
    }
#ifdef __AVX512VNNI__
    __m512i row = _mm512_set1_epi32((int)x);
    return (vec_u32)_mm512_dpbusd_epi32((__m512i)sums, row, (__m512i)w);
#else
    for (int byte = 0; byte < 4; byte++)
        sums += (vec_u32)((vec_i32)(w << (24 - 8 * byte)) >> 24) *
                (x >> (8 * byte) & 255);
    return sums;
#endif
}

// sums += x W, for up to MR rows and one panel. One or two rows accumulate
// into several registers in turn, so that no addition waits for the last one.
INLINE void microkernel(int dtype, int n_rows, const uint32_t *x,
                        long x_stride, const vec_u32 *panel, long n_words,
                        vec_u32 *sums) {
    const int n_chains = n_rows == 1 ? 4 : n_rows == 2 ? 2 : 1;
    vec_u32 acc[MR] = {0};
    long i = 0;
    for (; i + n_chains <= n_words; i += n_chains) {
        UNROLL
        for (int chain = 0; chain < n_chains; chain++) {
            vec_u32 w = panel[i + chain];
            __builtin_prefetch(panel + i + chain + PREFETCH, 0, 2);  // to L2
            UNROLL
            for (int r = 0; r < n_rows; r++)
                acc[r * n_chains + chain] =
                    multiply_add(dtype, acc[r * n_chains + chain], w,
                                 x[r * x_stride + i + chain]);
        }
    }
    for (; i < n_words; i++) {
        UNROLL
        for (int r = 0; r < n_rows; r++)
            acc[r * n_chains] = multiply_add(dtype, acc[r * n_chains],
                                             panel[i], x[r * x_stride + i]);
    }
    UNROLL
    for (int r = 0; r < n_rows; r++) {
        UNROLL
        for (int chain = 0; chain < n_chains; chain++) {
            vec_u32 more = acc[r * n_chains + chain];
            sums[r] = dtype == INT8
                          ? sums[r] + more
                          : (vec_u32)((vec_f32)sums[r] + (vec_f32)more);
        }
    }
}

INLINE void row_tiles(int dtype, long n_rows, const uint32_t *x,
                      long x_stride, const vec_u32 *panel, long n_words,
                      vec_u32 *sums) {
    long r = 0;
#define TILES_OF(ROWS)                                                        \
    for (; r + ROWS <= n_rows; r += ROWS)                                     \
        microkernel(dtype, ROWS, x + r * x_stride, x_stride, panel, n_words,  \
                    sums + r);
    TILES_OF(8) TILES_OF(4) TILES_OF(2) TILES_OF(1)
}

// sums += x W, for any number of rows and one panel. Only this function has
// code for each dtype: everything above is inlined into it as constants.
static void panel_product(int dtype, long n_rows, const uint32_t *x,
                          long x_stride, const vec_u32 *panel, long n_words,
                          vec_u32 *sums) {
    if (dtype == FLOAT32)
        row_tiles(FLOAT32, n_rows, x, x_stride, panel, n_words, sums);
    else if (dtype == BFLOAT16)
        row_tiles(BFLOAT16, n_rows, x, x_stride, panel, n_words, sums);
    else
        row_tiles(INT8, n_rows, x, x_stride, panel, n_words, sums);
}

INLINE vec_f32 blend(vec_i32 condition, vec_f32 yes, vec_f32 no) {
    return (vec_f32)((condition & (vec_i32)yes) | (~condition & (vec_i32)no));
}

INLINE vec_f32 clamp_min(vec_f32 x, float lowest) {
    return blend(x > lowest, x, (vec_f32){0} + lowest);
}

// exp(x), with a relative error of a few millionths; 0 for large negative x.
// e^x = 2^n e^r, with e^r by its Taylor polynomial.
INLINE vec_f32 exponential(vec_f32 x) {
    vec_f32 power = clamp_min(x * 1.44269504f + 127.5f, 0.5f);
    power = blend(power < 254.5f, power, (vec_f32){0} + 254.5f);
    vec_i32 biased = __builtin_convertvector(power, vec_i32);
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

// Convert a row to words, the last one padded with zeros, and return its
// scale. int8 has one scale for each row, values from -127 to 127, and is
// stored as uint8 with a zero point, because the instructions multiply uint8
// by int8. If a value of the row is not finite, the scale is NaN, which makes
// all products with the row NaN.
static float pack_row(int dtype, const float *x, long n, uint32_t *row) {
    row[ceil_div(n, per_word(dtype)) - 1] = 0;
    if (dtype == FLOAT32) memcpy(row, x, n * sizeof *x);
    if (dtype == BFLOAT16)
        for (long i = 0; i < n; i++) ((uint16_t *)row)[i] = as_bfloat16(x[i]);
    if (dtype != INT8) return 1;
    uint32_t bits = magnitude(1e-30f);
    for (long i = 0; i < n; i++) bits = max_u32(bits, magnitude(x[i]));
    if (bits >= INF_BITS) {
        memset(row, ZERO_POINT, n);
        return as_float(NAN_BITS);
    }
    float largest = as_float(bits), inverse = 127 / largest;
    for (long i = 0; i < n; i++)
        ((uint8_t *)row)[i] = (uint8_t)(nearbyintf(x[i] * inverse) +
                                        ZERO_POINT);
    return largest / 127;
}

// This thread's columns of y = epilogue(x W + b). `x` and `row_scales` come
// from `pack_row`. `sums` is this thread's, with room for n_rows vectors.
static void gemm(int dtype, struct thread me, const struct matrix *m,
                 const uint32_t *x, const float *row_scales, float *y,
                 long n_rows, int epilogue, vec_u32 *sums) {
    long n_words = ceil_div(m->n_in, per_word(dtype));
    long k_block = n_rows > MR ? KC : n_words;
    FOR_SHARE(panel, ceil_div(m->n_out, LANES)) {
        const vec_u32 *w = m->panels + panel * n_words;
        memset(sums, 0, n_rows * sizeof *sums);
        for (long k = 0; k < n_words; k += k_block)
            panel_product(dtype, n_rows, x + k, n_words, w + k,
                          min(k_block, n_words - k), sums);
        long n_bytes = min(LANES, m->n_out - panel * LANES) * sizeof(float);
        for (long r = 0; r < n_rows; r++) {
            float *dst = y + r * m->n_out + panel * LANES;
            vec_f32 out = (vec_f32)sums[r];
            if (dtype == INT8) {  // take off what the zero point has added
                vec_i32 dot =
                    (vec_i32)sums[r] - ZERO_POINT * m->column_sums[panel];
                out = __builtin_convertvector(dot, vec_f32) *
                      (m->scales[panel] * row_scales[r]);
            }
            out += m->bias[panel];
            if (epilogue == ADD) {
                vec_f32 old = {0};
                memcpy(&old, dst, n_bytes);
                out += old;
            } else if (epilogue != STORE) {
                out = activate(epilogue, out);
            }
            memcpy(dst, &out, n_bytes);
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
    long key_words = ceil_div(head_size, per_word(dtype));
    pack_row(dtype, key, head_size, column);
    keys += position / LANES * key_words * LANES + position % LANES;
    for (long i = 0; i < key_words; i++) keys[i * LANES] = column[i];
    long value_words = capacity / per_word(dtype);
    values += position / per_word(dtype) * LANES;
    for (long i = 0; i < head_size; i++) {
        uint32_t *word = values + i / LANES * value_words * LANES + i % LANES;
        if (dtype == FLOAT32)
            memcpy(word, value + i, sizeof *word);
        else
            ((uint16_t *)word)[position % 2] = as_bfloat16(value[i]);
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
        vec_f32 some;
        memcpy(&some, scores + s, sizeof some);
        some = exponential(some - largest);
        memcpy(scores + s, &some, sizeof some);
    }
    for (long s = 0; s < n_scores; s++) total += scores[s];
    if (bits >= INF_BITS) total = as_float(NAN_BITS);
    for (long s = 0; s < n_scores; s++) scores[s] /= total;
}

// Attention of one head, for up to MR consecutive queries, `first` the
// position of the first. `mask` has 1 for a token and 0 for padding; NULL: no
// padding. `scores` and `scaled`, with room for head_size floats, are this
// thread's.
static void attend(int dtype, const float *q, long q_stride, float *out,
                   long out_stride, const uint32_t *keys,
                   const uint32_t *values, const uint8_t *mask, long first,
                   long n_queries, long capacity, long head_size,
                   float *scores, float *scaled) {
    long n_keys = first + n_queries;
    long n_panels = ceil_div(n_keys, LANES), n_scores = n_panels * LANES;
    long key_words = ceil_div(head_size, per_word(dtype));
    long value_words = ceil_div(n_scores, per_word(dtype));
    uint32_t *rows = (uint32_t *)(scores + MR * n_scores);
    vec_u32 sums[MR];
    for (long r = 0; r < n_queries; r++) {
        for (long i = 0; i < head_size; i++)
            scaled[i] = q[r * q_stride + i] / sqrtf((float)head_size);
        pack_row(dtype, scaled, head_size, rows + r * key_words);
    }
    for (long panel = 0; panel < n_panels; panel++) {
        memset(sums, 0, sizeof sums);
        panel_product(dtype, n_queries, rows, key_words,
                      (const vec_u32 *)keys + panel * key_words, key_words,
                      sums);
        for (long r = 0; r < n_queries; r++)
            memcpy(scores + r * n_scores + panel * LANES, sums + r,
                   sizeof *sums);
    }
    for (long r = 0; r < n_queries; r++) {
        float *weights = scores + r * n_scores;
        masked_softmax(weights, n_scores, first + r + 1, mask);
        pack_row(dtype, weights, n_scores, rows + r * value_words);
    }
    for (long panel = 0; panel < ceil_div(head_size, LANES); panel++) {
        memset(sums, 0, sizeof sums);
        panel_product(
            dtype, n_queries, rows, value_words,
            (const vec_u32 *)values + panel * (capacity / per_word(dtype)),
            value_words, sums);
        long n_bytes = min(LANES, head_size - panel * LANES) * sizeof(float);
        for (long r = 0; r < n_queries; r++)
            memcpy(out + r * out_stride + panel * LANES, sums + r, n_bytes);
    }
}

// The workspace of a call. The first four buffers are shared by all threads;
// of the others each thread has its own.
struct workspace {
    uint32_t *rows;     // (MC, words of max(C, I)), the packed rows
    float *row_scales;  // (MC,)
    float *hidden;      // (N, 3 C) queries, keys, values; or (MC, I)
    float *mixed;       // (N, C), the output of attention
    float *scores;      // (MR, S + max(S, D)), scores and packed rows
    vec_u32 *sums;      // (MC,)
    float *row;         // (C,)
};

static void forward(struct thread me, const struct model *m, float *x,
                    struct kv_cache cache, long n_sequences, long n_new,
                    const uint8_t *mask, struct workspace work) {
    const int dtype = (int)m->dtype;
    const int cache_dtype = dtype == FLOAT32 ? FLOAT32 : BFLOAT16;
    const long C = m->n_embd, I = m->n_inner, H = m->n_head, D = C / H;
    const long n_rows = n_sequences * n_new, capacity = cache.capacity;
    const long n_keys = cache.length + n_new;
    // Words of a row of C or I values, and of a head's cache.
    const long row_words = ceil_div(C, per_word(dtype));
    const long inner_words = ceil_div(I, per_word(dtype));
    const long keys_stride = capacity * ceil_div(D, per_word(cache_dtype));
    const long values_stride =
        ceil_div(D, LANES) * LANES * (capacity / per_word(cache_dtype));
    for (const struct layer *layer = m->layers;
         layer < m->layers + m->n_layer; layer++) {
        // Queries, keys and values.
        for (long at = 0; at < n_rows; at += MC) {
            long n = min(MC, n_rows - at);
            FOR_SHARE(r, n) {
                layer_norm(x + (at + r) * C, layer->ln_1_weight,
                           layer->ln_1_bias, m->epsilon, C, work.row);
                work.row_scales[r] =
                    pack_row(dtype, work.row, C, work.rows + r * row_words);
            }
            BARRIER
            gemm(dtype, me, &layer->attn_c_attn, work.rows, work.row_scales,
                 work.hidden + at * 3 * C, n, STORE, work.sums);
            BARRIER
        }
        FOR_SHARE(head, n_sequences * H) {
            const float *k = work.hidden + head / H * n_new * 3 * C + C +
                             head % H * D;
            for (long t = 0; t < n_new; t++, k += 3 * C)
                append_to_cache(cache_dtype, k, k + C,
                                cache.keys + head * keys_stride,
                                cache.values + head * values_stride,
                                cache.length + t, capacity, D,
                                (uint32_t *)work.row);
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
                   min(MR, n_new - t), capacity, D, work.scores, work.row);
        }
        BARRIER
        for (long at = 0; at < n_rows; at += MC) {
            long n = min(MC, n_rows - at);
            FOR_SHARE(r, n)
            work.row_scales[r] = pack_row(dtype, work.mixed + (at + r) * C, C,
                                          work.rows + r * row_words);
            BARRIER
            gemm(dtype, me, &layer->attn_c_proj, work.rows, work.row_scales,
                 x + at * C, n, ADD, work.sums);
            BARRIER
            // The feed-forward network.
            FOR_SHARE(r, n) {
                layer_norm(x + (at + r) * C, layer->ln_2_weight,
                           layer->ln_2_bias, m->epsilon, C, work.row);
                work.row_scales[r] =
                    pack_row(dtype, work.row, C, work.rows + r * row_words);
            }
            BARRIER
            gemm(dtype, me, &layer->mlp_c_fc, work.rows, work.row_scales,
                 work.hidden, n, (int)m->activation, work.sums);
            BARRIER
            FOR_SHARE(r, n)
            work.row_scales[r] = pack_row(dtype, work.hidden + r * I, I,
                                          work.rows + r * inner_words);
            BARRIER
            gemm(dtype, me, &layer->mlp_c_proj, work.rows, work.row_scales,
                 x + at * C, n, ADD, work.sums);
            BARRIER
        }
        cache.keys += cache.per_layer * n_sequences * H * keys_stride;
        cache.values += cache.per_layer * n_sequences * H * values_stride;
    }
}

// Pack up to 16 columns into a panel of zeros. For int8, each column has a
// scale of its own, with which its largest value becomes 127 or -127. Returns
// the magnitude of the largest value, which may not be finite.
INLINE uint32_t pack_panel(int dtype, const float *weight, long row_stride,
                           long column_stride, const float *offsets, long n_in,
                           long n_columns, uint32_t *panel, float *scales,
                           int32_t *column_sums) {
#define VALUE(I) (weight[(I) * row_stride + c * column_stride] - offsets[I])
    uint32_t bits[LANES] = {0}, largest = 0;
    if (dtype == INT8) {
        for (long i = 0; i < n_in; i++)
            for (long c = 0; c < n_columns; c++)
                bits[c] = max_u32(bits[c], magnitude(VALUE(i)));
        for (long c = 0; c < LANES; c++) {
            float scale = as_float(bits[c]) / 127;
            largest = max_u32(bits[c], magnitude(127 * scale));
            if (largest >= INF_BITS) return largest;
            scales[c] = scale >= FLT_MIN ? scale : 1;
            column_sums[c] = 0;
        }
    }
    for (long i = 0; i < n_in; i += per_word(dtype), panel += LANES)
        for (long c = 0; c < n_columns; c++) {
            if (dtype == FLOAT32) {
                float value = VALUE(i);
                memcpy(panel + c, &value, sizeof value);
                bits[c] = max_u32(bits[c], magnitude(value));
            } else if (dtype == BFLOAT16) {
                float low = VALUE(i), high = 0;
                if (i + 1 < n_in) high = VALUE(i + 1);
                panel[c] = as_bfloat16(low) | (uint32_t)as_bfloat16(high)
                                                  << 16;
                bits[c] = max_u32(bits[c],
                                  max_u32(magnitude(low), magnitude(high)));
            } else {
                uint32_t word = 0;
                for (long k = 0; k < min(4, n_in - i); k++) {
                    int32_t integer =
                        (int32_t)nearbyintf(VALUE(i + k) / scales[c]);
                    column_sums[c] += integer;
                    word |= (uint32_t)(uint8_t)integer << 8 * k;
                }
                panel[c] = word;
            }
        }
    for (long c = 0; c < LANES; c++) largest = max_u32(largest, bits[c]);
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
    long n_words = ceil_div(n_in, per_word(dtype));
    uint32_t limit = dtype == BFLOAT16 ? INF_BITS - 0x8000 : INF_BITS;
    int failed = 0;
#pragma omp parallel num_threads(n_threads) reduction(| : failed)
    {
        struct thread me = this_thread();
        FOR_SHARE(panel, ceil_div(n_out, LANES)) {
            long at = panel * LANES, n_columns = min(LANES, n_out - at);
            uint32_t largest;
#define PACK(DTYPE, STRIDE)                                                   \
    largest = pack_panel(DTYPE, weight + at * (STRIDE), row_stride, STRIDE,   \
                         offsets, n_in, n_columns, panels + at * n_words,     \
                         scales + at, column_sums + at)
#define PACK_ANY(STRIDE)                                                      \
    if (dtype == FLOAT32) PACK(FLOAT32, STRIDE);                              \
    else if (dtype == BFLOAT16) PACK(BFLOAT16, STRIDE);                       \
    else PACK(INT8, STRIDE)
            if (column_stride == 1) {  // a constant makes for faster code
                PACK_ANY(1);
            } else {
                PACK_ANY(column_stride);
            }
            failed |= largest >= limit;
        }
    }
    return failed;
}

// y = x W + b, for x (n_rows, n_in) and y (n_rows, n_out), both float32.
// Returns 0, or 1 if there is no memory.
int matmul(int dtype, const struct matrix *m, const float *x, float *y,
           long n_rows, long n_threads) {
    long n_words = ceil_div(m->n_in, per_word(dtype));
    long block = min(n_rows, MC);
    uint32_t *rows = malloc(block * n_words * sizeof *rows);
    float *row_scales = malloc(block * sizeof *row_scales);
    vec_u32 *sums = aligned_alloc(64, n_threads * block * sizeof *sums);
    int failed = !rows || !row_scales || !sums;
#pragma omp parallel num_threads(n_threads) if (!failed)
    for (long at = 0; !failed && at < n_rows; at += MC) {
        struct thread me = this_thread();
        long n = min(MC, n_rows - at);
        FOR_SHARE(r, n)
        row_scales[r] = pack_row(dtype, x + (at + r) * m->n_in, m->n_in,
                                 rows + r * n_words);
        BARRIER
        gemm(dtype, me, m, rows, row_scales, y + at * m->n_out, n, STORE,
             sums + me.rank * block);
        BARRIER
    }
    free(rows), free(row_scales), free(sums);
    return failed;
}

// Run all layers: x (B, T, C), the residual stream, is changed in place, and
// the new keys and values are appended to the cache. `mask` is (B, length +
// T), 1 for a token and 0 for padding; NULL: no padding. Returns 0, or 1 if
// there is no memory.
int run_layers(const struct model *m, float *x, struct kv_cache *cache,
               long n_sequences, long n_new, const uint8_t *mask,
               long n_threads) {
    const int dtype = (int)m->dtype;
    const long C = m->n_embd, I = m->n_inner, D = C / m->n_head;
    const long n_rows = n_sequences * n_new, block = min(n_rows, MC);
    const long n_keys = ceil_div(cache->length + n_new, LANES) * LANES;
    const long n_scores = MR * (n_keys + max(n_keys, D));
    const long n_hidden = max(n_rows * 3 * C, block * I);
    struct workspace shared = {
        .rows = malloc(block * ceil_div(max(C, I), per_word(dtype)) *
                       sizeof(uint32_t)),
        .row_scales = malloc(block * sizeof(float)),
        .hidden = malloc(n_hidden * sizeof(float)),
        .mixed = malloc(n_rows * C * sizeof(float)),
        .scores = malloc(n_threads * n_scores * sizeof(float)),
        .sums = aligned_alloc(64, n_threads * block * sizeof(vec_u32)),
        .row = malloc(n_threads * C * sizeof(float)),
    };
    int failed = !shared.rows || !shared.row_scales || !shared.hidden ||
                 !shared.mixed || !shared.scores || !shared.sums ||
                 !shared.row;
#pragma omp parallel num_threads(n_threads) if (!failed)
    if (!failed) {
        struct thread me = this_thread();
        struct workspace work = shared;
        work.scores += me.rank * n_scores;
        work.sums += me.rank * block;
        work.row += me.rank * C;
        forward(me, m, x, *cache, n_sequences, n_new, mask, work);
    }
    free(shared.rows), free(shared.row_scales), free(shared.hidden);
    free(shared.mixed), free(shared.scores), free(shared.sums);
    free(shared.row);
    return failed;
}
