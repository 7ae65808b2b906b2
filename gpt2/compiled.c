// What a step of writing does most, in C: rows times a matrix, and attention.
//
// A matrix is kept as words of 32 bits: one float32, two bfloat16, or four
// int8 that follow each other down a column. Sixteen columns lie side by side,
// so that one register, `words`, is a piece of each:
//
//     matrix (n_out / 16, n_words, 16), where n_words = n_in / 1, 2 or 4
//
// The sixteen sums grow in one register too. It goes through memory in order,
// once for up to eight rows, and with one row that is nearly all it costs.

#define _DEFAULT_SOURCE  // for madvise
#include <float.h>
#include <math.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#ifdef __AVX512F__
#include <immintrin.h>
#endif
#ifdef __linux__
#include <sys/mman.h>
#endif

#define WIDE 16
#define AHEAD 48  // how far ahead memory is asked for, in words of sixteen
#define INLINE static inline __attribute__((always_inline))
#define UNROLLED _Pragma("GCC unroll 8")  // so that sums stay in registers

typedef uint32_t words __attribute__((vector_size(4 * WIDE)));
typedef int32_t ints __attribute__((vector_size(4 * WIDE)));
typedef float floats __attribute__((vector_size(4 * WIDE)));

INLINE float as_float(uint32_t word) {
    float value;
    memcpy(&value, &word, sizeof value);
    return value;
}

// Sixteen columns of the matrix, and one word of a row: add their products.

INLINE floats step_float32(floats sums, words w, uint32_t x) {
    return sums + (floats)w * as_float(x);
}

INLINE floats step_bfloat16(floats sums, words w, uint32_t x) {
#ifdef __AVX512BF16__
    __m512i row = _mm512_set1_epi32((int)x);
    return (floats)_mm512_dpbf16_ps((__m512)sums, (__m512bh)w, (__m512bh)row);
#else  // bfloat16 is the upper half of a float32
    const uint32_t upper = 0xffff0000;
    return sums + (floats)(w << 16) * as_float(x << 16) +
           (floats)(w & upper) * as_float(x & upper);
#endif
}

INLINE ints step_int8(ints sums, words w, uint32_t x) {
#ifdef __AVX512VNNI__
    __m512i row = _mm512_set1_epi32((int)x);
    return (ints)_mm512_dpbusd_epi32((__m512i)sums, row, (__m512i)w);
#else
    for (int byte = 0; byte < 4; byte++)
        sums += ((ints)(w << (24 - 8 * byte)) >> 24) *
                (int32_t)(x >> (8 * byte) & 255);
    return sums;
#endif
}

// What becomes of a row before it is multiplied.

static void words_float32(const float *x, uint32_t *row, float *size, long n) {
    memcpy(row, x, n * sizeof(float));
    *size = 1;
}

static void words_bfloat16(const float *x, uint32_t *row, float *size,
                           long n) {
    uint16_t *to = (uint16_t *)row;
    for (long i = 0; i < n; i++) {
        uint32_t bits;
        memcpy(&bits, x + i, sizeof bits);
        to[i] = (uint16_t)((bits + 0x7fff + (bits >> 16 & 1)) >> 16);
    }
    *size = 1;
}

// A row is rounded to 255 steps of its own, from -127 to 127, and 128 added,
// since processors multiply unsigned numbers by signed ones.
static void words_int8(const float *x, uint32_t *row, float *size, long n) {
    uint8_t *to = (uint8_t *)row;
    float largest = 1e-30f;
    for (long i = 0; i < n; i++) largest = fmaxf(largest, fabsf(x[i]));
    float steps = 127 / largest;
    for (long i = 0; i < n; i++)
        to[i] = (uint8_t)(nearbyintf(x[i] * steps) + 128);
    *size = largest / 127;
}

// What becomes of sixteen sums: what the 128 have added is taken off again.

INLINE floats finish_floats(floats sums, ints totals, floats scale) {
    (void)totals, (void)scale;
    return sums;
}

INLINE floats finish_ints(ints sums, ints totals, floats scale) {
    return __builtin_convertvector(sums - 128 * totals, floats) * scale;
}

#define ROWS(NAME, COUNT)                                                     \
    for (; r + COUNT <= n_rows; r += COUNT)                                   \
        rows_##NAME(row_words + r * n_words, sizes + r, at, totals[block],    \
                    scales[block], b[block], y + r * n_out + block * WIDE,    \
                    wanted, n_out, n_words, COUNT);

// y = x W + b, with x (n_rows, n_in) and y (n_rows, n_out). Of W's columns,
// `scales` are the steps, `totals` the sums, and `b` what is added; there are
// 16 of them for each block, and the last may be more than are wanted.
// Returns 0, or 1 where there is no memory.
#define PRODUCT(NAME, PER_WORD, SUMS, FINISH)                                 \
    INLINE void rows_##NAME(const uint32_t *x, const float *sizes,            \
                            const words *w, ints totals, floats scales,       \
                            floats b, float *y, long n_wanted, long n_out,    \
                            long n_words, int n_rows) {                       \
        SUMS sums[8] = {0};                                                   \
        for (long i = 0; i < n_words; i++) {                                  \
            words columns = w[i];                                             \
            __builtin_prefetch(w + i + AHEAD);                                \
            UNROLLED                                                          \
            for (int r = 0; r < n_rows; r++)                                  \
                sums[r] = step_##NAME(sums[r], columns, x[r * n_words + i]);  \
        }                                                                     \
        UNROLLED                                                              \
        for (int r = 0; r < n_rows; r++) {                                    \
            floats out = FINISH(sums[r], totals, scales * sizes[r]) + b;      \
            memcpy(y + r * n_out, &out, n_wanted * sizeof(float));            \
        }                                                                     \
    }                                                                         \
                                                                              \
    int product_##NAME(const float *x, const words *w, const floats *scales,  \
                       const ints *totals, const floats *b, float *y,         \
                       long n_rows, long n_out, long n_in) {                  \
        long n_words = (n_in + PER_WORD - 1) / PER_WORD;                      \
        uint32_t *row_words = calloc(n_rows * n_words, sizeof *row_words);    \
        float *sizes = malloc(n_rows * sizeof *sizes);                        \
        int failed = !row_words || !sizes;                                    \
        _Pragma("omp parallel if (!failed)") if (!failed) {                   \
            _Pragma("omp for schedule(static)")                               \
            for (long r = 0; r < n_rows; r++)                                 \
                words_##NAME(x + r * n_in, row_words + r * n_words,           \
                             sizes + r, n_in);                                \
            _Pragma("omp for schedule(static)")                               \
            for (long block = 0; block < (n_out + WIDE - 1) / WIDE;           \
                 block++) {                                                   \
                long left = n_out - block * WIDE, r = 0;                      \
                long wanted = left < WIDE ? left : WIDE;                      \
                const words *at = w + block * n_words;                        \
                ROWS(NAME, 8)                                                 \
                ROWS(NAME, 4)                                                 \
                ROWS(NAME, 2)                                                 \
                ROWS(NAME, 1)                                                 \
            }                                                                 \
        }                                                                     \
        free(row_words);                                                      \
        free(sizes);                                                          \
        return failed;                                                        \
    }

PRODUCT(float32, 1, floats, finish_floats)
PRODUCT(bfloat16, 2, floats, finish_floats)
PRODUCT(int8, 4, ints, finish_ints)

// One query per sequence and head looks at n_keys keys. q is (B, H, D) with
// `q_step` numbers from one sequence to the next; keys and values are
// (B, H, room, D); out is (B, H, D). Returns 0, or 1 where there is no memory.
int attend(const float *q, const float *keys, const float *values, float *out,
           long n_sequences, long n_heads, long q_step, long n_keys, long room,
           long d) {
    int failed = 0;
    float scale = 1 / sqrtf((float)d);
#pragma omp parallel for schedule(static) reduction(| : failed)
    for (long head = 0; head < n_sequences * n_heads; head++) {
        const float *query =
            q + head / n_heads * q_step + head % n_heads * d;
        const float *key = keys + head * room * d;
        const float *value = values + head * room * d;
        float *mixed = out + head * d;
        float *weights = malloc(n_keys * sizeof *weights);
        if (!weights) {
            failed = 1;
            continue;
        }
        float largest = -FLT_MAX, total = 0;
        for (long s = 0; s < n_keys; s++) {
            float score = 0;
            for (long i = 0; i < d; i++) score += query[i] * key[s * d + i];
            weights[s] = score * scale;
            largest = fmaxf(largest, weights[s]);
        }
        for (long s = 0; s < n_keys; s++) {
            weights[s] = expf(weights[s] - largest);
            total += weights[s];
        }
        memset(mixed, 0, d * sizeof *mixed);
        for (long s = 0; s < n_keys; s++) {
            float weight = weights[s] / total;
            for (long i = 0; i < d; i++) mixed[i] += weight * value[s * d + i];
        }
        free(weights);
    }
    return failed;
}

// Memory that is read from end to end is read faster in pages of 2 MiB than of
// 4 KiB. Linux gives them where it is asked before the memory is written to.
void ask_for_large_pages(void *start, long n_bytes) {
#ifdef __linux__
    madvise(start, n_bytes, MADV_HUGEPAGE);
#else
    (void)start, (void)n_bytes;
#endif
}
