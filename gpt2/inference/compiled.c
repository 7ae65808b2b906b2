// What running a packed model does most, in C: all its layers, from the first
// norm to the last residual, in one call.
//
// A matrix is kept as words of 32 bits: one float32, two bfloat16, or four
// int8 that follow each other down a column. Sixteen columns lie side by side,
// so that one register, `words`, is a piece of each:
//
//     matrix (n_out / 16, n_words, 16), where n_words = n_in / 1, 2 or 4
//
// The sixteen sums grow in one register too. The matrix goes through memory in
// order, once for up to eight rows; with one row, that is nearly all it costs.
//
// To a query, the keys are such a matrix as well, whose columns are the keys,
// and to its weights the values are one, with a row for each key. So attention
// is twice the same product, with a softmax in between.

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

#define WIDE 16
#define LOWEST -1e30f
#define INFINITE 0x7f800000u  // the bits of infinity
#define NOT_A_NUMBER 0x7fc00000u
#define TILE 8      // rows that go through a matrix together
#define CHUNK 256   // words of a column that stay close, where rows are many
#define SLAB 256    // rows that go through the feed-forward network together
#define AHEAD 128   // how far ahead memory is asked for, in registers
#define INLINE static inline __attribute__((always_inline))
#define UNROLLED _Pragma("GCC unroll 8")  // so that sums stay in registers
#ifndef BARRIER  // a test may put delays into it
#define BARRIER _Pragma("omp barrier")    // until all workers are here
#endif

typedef uint32_t words __attribute__((vector_size(4 * WIDE)));
typedef int32_t ints __attribute__((vector_size(4 * WIDE)));
typedef float floats __attribute__((vector_size(4 * WIDE)));

// What a word is made of, and what becomes of a product.
enum kind { FLOAT32, BFLOAT16, INT8 };
enum after { STORE, ADD, GELU_NEW, GELU, RELU };

struct matrix {
    const words *words;
    const floats *scales;  // int8: the step of each column
    const ints *totals;    // int8: its sum
    const floats *bias;    // of all three, there are 16 for each block
    long n_in, n_out;
};

struct layer {
    const float *ln_1_weight, *ln_1_bias, *ln_2_weight, *ln_2_bias;
    struct matrix c_attn, c_proj, c_fc, c_mlp;
};

struct model {
    long kind, n_layer, n_head, n_embd, n_inner, activation;
    float epsilon;
    const struct layer *layers;
};

// What the layers remember, of each sequence and head: keys
// (room / 16, words of D, 16) and values (D / 16, words of `room`, 16).
struct memory {
    uint32_t *keys, *values;
    long past, room;  // positions that are filled, and that could be; the
                      // latter a multiple of 16
    long alone;       // each layer has its own; else all share one
};

// One of those who share the work, and the part of n pieces that is its own.
struct worker {
    long rank, count;
};

INLINE long begin(struct worker me, long n) { return n * me.rank / me.count; }
INLINE long end(struct worker me, long n) {
    return n * (me.rank + 1) / me.count;
}

INLINE long least(long a, long b) { return a < b ? a : b; }
INLINE long most(long a, long b) { return a > b ? a : b; }
INLINE long pieces(long n, long size) { return (n + size - 1) / size; }
INLINE long per_word(int kind) {
    return kind == FLOAT32 ? 1 : kind == BFLOAT16 ? 2 : 4;
}

// A number's bits without its sign: they grow with its size, and from INFINITE
// on it is not finite. The compiler takes all numbers to be finite, and would
// leave out a comparison of the numbers themselves.
INLINE uint32_t size_of(float value) {
    uint32_t bits;
    memcpy(&bits, &value, sizeof bits);
    return bits & 0x7fffffff;
}

INLINE uint32_t larger(uint32_t a, uint32_t b) { return a > b ? a : b; }

INLINE float as_float(uint32_t word) {
    float value;
    memcpy(&value, &word, sizeof value);
    return value;
}

INLINE uint16_t as_bfloat16(float value) {
    uint32_t bits;
    memcpy(&bits, &value, sizeof bits);
    return (uint16_t)((bits + 0x7fff + (bits >> 16 & 1)) >> 16);
}

// Add the products of sixteen columns' words and one word of a row.
INLINE words step(int kind, words sums, words w, uint32_t x) {
    if (kind == FLOAT32)
        return (words)((floats)sums + (floats)w * as_float(x));
    if (kind == BFLOAT16) {
#ifdef __AVX512BF16__
        __m512i row = _mm512_set1_epi32((int)x);
        return (words)_mm512_dpbf16_ps((__m512)sums, (__m512bh)w,
                                       (__m512bh)row);
#else  // bfloat16 is the upper half of a float32
        const uint32_t upper = 0xffff0000;
        return (words)((floats)sums + (floats)(w << 16) * as_float(x << 16) +
                       (floats)(w & upper) * as_float(x & upper));
#endif
    }
#ifdef __AVX512VNNI__
    __m512i row = _mm512_set1_epi32((int)x);
    return (words)_mm512_dpbusd_epi32((__m512i)sums, row, (__m512i)w);
#else
    for (int byte = 0; byte < 4; byte++)
        sums += (words)((ints)(w << (24 - 8 * byte)) >> 24) *
                (x >> (8 * byte) & 255);
    return sums;
#endif
}

// A few rows times sixteen columns, added to what `sums` has for each row.
// One row takes every other word, or a quarter of them, to another register:
// so no addition waits for the one before it.
INLINE void tile(int kind, int n_rows, const uint32_t *x, long x_step,
                 const words *w, long n_words, words *sums) {
    const int lanes = n_rows == 1 ? 4 : n_rows == 2 ? 2 : 1;
    words own[TILE] = {0};
    long i = 0;
    for (; i + lanes <= n_words; i += lanes) {
        UNROLLED
        for (int lane = 0; lane < lanes; lane++) {
            words columns = w[i + lane];
            __builtin_prefetch(w + i + lane + AHEAD, 0, 2);  // to L2
            UNROLLED
            for (int r = 0; r < n_rows; r++)
                own[r * lanes + lane] =
                    step(kind, own[r * lanes + lane], columns,
                         x[r * x_step + i + lane]);
        }
    }
    for (; i < n_words; i++) {
        UNROLLED
        for (int r = 0; r < n_rows; r++)
            own[r * lanes] =
                step(kind, own[r * lanes], w[i], x[r * x_step + i]);
    }
    UNROLLED
    for (int r = 0; r < n_rows; r++) {
        UNROLLED
        for (int lane = 0; lane < lanes; lane++) {
            words more = own[r * lanes + lane];
            sums[r] = kind == INT8 ? sums[r] + more
                                   : (words)((floats)sums[r] + (floats)more);
        }
    }
}

INLINE void tiles_of(int kind, long n_rows, const uint32_t *x, long x_step,
                     const words *w, long n_words, words *sums) {
    long r = 0;
#define BY(COUNT)                                                             \
    for (; r + COUNT <= n_rows; r += COUNT)                                   \
        tile(kind, COUNT, x + r * x_step, x_step, w, n_words, sums + r);
    BY(8) BY(4) BY(2) BY(1)
}

// The same for any number of rows. Only here is there code of its own for each
// kind: all that is above is put in its place, with what is known there.
static void tiles(int kind, long n_rows, const uint32_t *x, long x_step,
                  const words *w, long n_words, words *sums) {
    if (kind == FLOAT32)
        tiles_of(FLOAT32, n_rows, x, x_step, w, n_words, sums);
    else if (kind == BFLOAT16)
        tiles_of(BFLOAT16, n_rows, x, x_step, w, n_words, sums);
    else
        tiles_of(INT8, n_rows, x, x_step, w, n_words, sums);
}

INLINE floats choose(ints which, floats yes, floats no) {
    return (floats)((which & (ints)yes) | (~which & (ints)no));
}

INLINE floats at_least(float least, floats x) {
    return choose(x > least, x, (floats){0} + least);
}

// Sixteen times e to the x, to within a few millionths of it; 0 far below.
INLINE floats exponential(floats x) {
    floats power = at_least(0.5f, x * 1.44269504f + 127.5f);
    power = choose(power < 254.5f, power, (floats){0} + 254.5f);
    ints whole = __builtin_convertvector(power, ints);
    x -= (__builtin_convertvector(whole, floats) - 127) * 0.693147181f;
    x = at_least(-1, x);
    floats sum = 1.66666667e-1f +
                 x * (4.16666667e-2f +
                      x * (8.33333333e-3f + x * 1.38888889e-3f));
    return (1 + x * (1 + x * (0.5f + x * sum))) * (floats)(whole << 23);
}

INLINE floats activated(int after, floats x) {
    if (after == GELU_NEW)  // (1 + tanh u) / 2 = 1 / (1 + e^-2u)
        return x / (1 + exponential(x * (-1.5957691216f -
                                         0.0713548162726f * x * x)));
    if (after == RELU) return at_least(0, x);
    for (int i = 0; i < WIDE; i++)
        x[i] *= 0.5f * (1 + erff(x[i] * 0.70710678f));
    return x;
}

// A row's numbers as words, the last one filled up with zeros. For int8 it is
// rounded to 255 steps of its own, from -127 to 127, and 128 added, since
// processors multiply unsigned numbers by signed ones. Returns the step, which
// is not a number where one of the row's is not finite: nor will its sums be.
static float prepare(int kind, const float *x, long n, uint32_t *row) {
    row[pieces(n, per_word(kind)) - 1] = 0;
    if (kind == FLOAT32) memcpy(row, x, n * sizeof *x);
    if (kind == BFLOAT16)
        for (long i = 0; i < n; i++) ((uint16_t *)row)[i] = as_bfloat16(x[i]);
    if (kind != INT8) return 1;
    uint32_t size = size_of(1e-30f);
    for (long i = 0; i < n; i++) size = larger(size, size_of(x[i]));
    if (size >= INFINITE) {
        memset(row, 128, n);
        return as_float(NOT_A_NUMBER);
    }
    float largest = as_float(size), steps = 127 / largest;
    for (long i = 0; i < n; i++)
        ((uint8_t *)row)[i] = (uint8_t)(nearbyintf(x[i] * steps) + 128);
    return largest / 127;
}

// This worker's part of y = x W + b. `x` and `sizes` come from `prepare`, and
// `sums` is its own, with a place for each row.
static void multiply(int kind, struct worker me, const struct matrix *m,
                     const uint32_t *x, const float *sizes, float *y,
                     long n_rows, int after, words *sums) {
    long n_words = pieces(m->n_in, per_word(kind));
    long n_blocks = pieces(m->n_out, WIDE);
    long chunk = n_rows > TILE ? CHUNK : n_words;
    for (long block = begin(me, n_blocks); block < end(me, n_blocks);
         block++) {
        const words *w = m->words + block * n_words;
        memset(sums, 0, n_rows * sizeof *sums);
        for (long at = 0; at < n_words; at += chunk)
            tiles(kind, n_rows, x + at, n_words, w + at,
                  least(chunk, n_words - at), sums);
        long wanted = least(WIDE, m->n_out - block * WIDE) * sizeof(float);
        for (long r = 0; r < n_rows; r++) {
            float *place = y + r * m->n_out + block * WIDE;
            floats out = (floats)sums[r];
            if (kind == INT8)  // what the 128 have added is taken off again
                out = __builtin_convertvector(
                          (ints)sums[r] - 128 * m->totals[block], floats) *
                      (m->scales[block] * sizes[r]);
            out += m->bias[block];
            if (after == ADD) {
                floats before = {0};
                memcpy(&before, place, wanted);
                out += before;
            } else if (after != STORE) {
                out = activated(after, out);
            }
            memcpy(place, &out, wanted);
        }
    }
}

static void normalize(const float *x, const float *weight, const float *bias,
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

// One position's key and value, of one head, take their places: the key becomes
// a column of its matrix, and the value a row of its own. `column` has room for
// `size` words and is this worker's.
static void remember(int kind, const float *key, const float *value,
                     uint32_t *keys, uint32_t *values, long position,
                     long room, long size, uint32_t *column) {
    long key_words = pieces(size, per_word(kind));
    prepare(kind, key, size, column);
    keys += position / WIDE * key_words * WIDE + position % WIDE;
    for (long i = 0; i < key_words; i++) keys[i * WIDE] = column[i];
    long value_words = room / per_word(kind);
    values += position / per_word(kind) * WIDE;
    for (long i = 0; i < size; i++) {
        uint32_t *word = values + i / WIDE * value_words * WIDE + i % WIDE;
        if (kind == FLOAT32)
            memcpy(word, value + i, sizeof *word);
        else
            ((uint16_t *)word)[position % 2] = as_bfloat16(value[i]);
    }
}

// Up to eight queries that follow each other, `t` the first, of one sequence
// and head: `q` and `out` have C numbers for each position. `real` says which
// positions are no padding; NULL: none is. `scores` and `scaled`, with room for
// `size` numbers, are this worker's.
static void attend(int kind, const float *q, long q_step, float *out,
                   long out_step, const uint32_t *keys,
                   const uint32_t *values, const uint8_t *real, long t,
                   long n_queries, long room, long size, float *scores,
                   float *scaled) {
    long n_keys = t + n_queries, key_words = pieces(size, per_word(kind));
    long n_blocks = pieces(n_keys, WIDE), n_scores = n_blocks * WIDE;
    long value_words = pieces(n_scores, per_word(kind));
    uint32_t *rows = (uint32_t *)(scores + TILE * n_scores);
    words sums[TILE];
    for (long r = 0; r < n_queries; r++) {
        for (long i = 0; i < size; i++)
            scaled[i] = q[r * q_step + i] / sqrtf((float)size);
        prepare(kind, scaled, size, rows + r * key_words);
    }
    for (long block = 0; block < n_blocks; block++) {
        memset(sums, 0, sizeof sums);
        tiles(kind, n_queries, rows, key_words,
              (const words *)keys + block * key_words, key_words, sums);
        for (long r = 0; r < n_queries; r++)
            memcpy(scores + r * n_scores + block * WIDE, sums + r,
                   sizeof *sums);
    }
    for (long r = 0; r < n_queries; r++) {
        float *row = scores + r * n_scores;
        for (long s = 0; real && s < t + r; s++)
            if (!real[s]) row[s] = LOWEST;
        for (long s = t + r + 1; s < n_scores; s++) row[s] = LOWEST;
        float largest = LOWEST, total = 0;
        uint32_t widest = 0;
        for (long s = 0; s < n_scores; s++) {
            largest = fmaxf(largest, row[s]);
            widest = larger(widest, size_of(row[s]));
        }
        for (long s = 0; s < n_scores; s += WIDE) {
            floats some;
            memcpy(&some, row + s, sizeof some);
            some = exponential(some - largest);
            memcpy(row + s, &some, sizeof some);
        }
        for (long s = 0; s < n_scores; s++) total += row[s];
        if (widest >= INFINITE) total = as_float(NOT_A_NUMBER);
        for (long s = 0; s < n_scores; s++) row[s] /= total;
        prepare(kind, row, n_scores, rows + r * value_words);
    }
    for (long block = 0; block < pieces(size, WIDE); block++) {
        memset(sums, 0, sizeof sums);
        tiles(kind, n_queries, rows, value_words,
              (const words *)values + block * (room / per_word(kind)),
              value_words, sums);
        long wanted = least(WIDE, size - block * WIDE) * sizeof(float);
        for (long r = 0; r < n_queries; r++)
            memcpy(out + r * out_step + block * WIDE, sums + r, wanted);
    }
}

// What a call works with. `rows`, `sizes`, `wide` and `mixed` are shared.
struct desk {
    uint32_t *rows;  // (SLAB, words of C, or of I if that is more)
    float *sizes;    // (SLAB,)
    float *wide;     // (N, 3 C) or (SLAB, I)
    float *mixed;    // (N, C)
    float *scores;   // (TILE, 2 S), one for each worker
    words *sums;     // (SLAB,), one for each worker
    float *row;      // (C,), one for each worker
};

#define EACH(R, N) for (long R = begin(me, N); R < end(me, N); R++)

static void run(struct worker me, const struct model *m, float *x,
                struct memory memory, long n_sequences, long n_new,
                const uint8_t *real, struct desk desk) {
    const int kind = (int)m->kind, kept = kind == FLOAT32 ? FLOAT32 : BFLOAT16;
    const long C = m->n_embd, I = m->n_inner, H = m->n_head, D = C / H;
    const long n_rows = n_sequences * n_new, room = memory.room;
    const long n_keys = memory.past + n_new;
    const long key_words = pieces(D, per_word(kept));
    const long keys_of_head = room * key_words;
    const long values_of_head =
        pieces(D, WIDE) * WIDE * (room / per_word(kept));
    const long narrow = pieces(C, per_word(kind));
    const long broad = pieces(I, per_word(kind));
    for (const struct layer *layer = m->layers;
         layer < m->layers + m->n_layer; layer++) {
        for (long at = 0; at < n_rows; at += SLAB) {
            long n = least(SLAB, n_rows - at);
            EACH(r, n) {
                normalize(x + (at + r) * C, layer->ln_1_weight,
                          layer->ln_1_bias, m->epsilon, C, desk.row);
                desk.sizes[r] =
                    prepare(kind, desk.row, C, desk.rows + r * narrow);
            }
            BARRIER
            multiply(kind, me, &layer->c_attn, desk.rows, desk.sizes,
                     desk.wide + at * 3 * C, n, STORE, desk.sums);
            BARRIER
        }
        EACH(head, n_sequences * H) {
            const float *k = desk.wide + head / H * n_new * 3 * C + C +
                             head % H * D;
            for (long t = 0; t < n_new; t++, k += 3 * C)
                remember(kept, k, k + C, memory.keys + head * keys_of_head,
                         memory.values + head * values_of_head,
                         memory.past + t, room, D, (uint32_t *)desk.row);
        }
        BARRIER
        // A later query has more to look at: so they are dealt out in turn.
        long n_tiles = pieces(n_new, TILE);
        for (long i = me.rank; i < n_sequences * H * n_tiles; i += me.count) {
            long head = i / n_tiles, t = i % n_tiles * TILE;
            long row = head / H * n_new + t;
            attend(kept, desk.wide + row * 3 * C + head % H * D, 3 * C,
                   desk.mixed + row * C + head % H * D, C,
                   memory.keys + head * keys_of_head,
                   memory.values + head * values_of_head,
                   real ? real + head / H * n_keys : NULL, memory.past + t,
                   least(TILE, n_new - t), room, D, desk.scores, desk.row);
        }
        BARRIER
        for (long at = 0; at < n_rows; at += SLAB) {
            long n = least(SLAB, n_rows - at);
            EACH(r, n)
            desk.sizes[r] = prepare(kind, desk.mixed + (at + r) * C, C,
                                    desk.rows + r * narrow);
            BARRIER
            multiply(kind, me, &layer->c_proj, desk.rows, desk.sizes,
                     x + at * C, n, ADD, desk.sums);
            BARRIER
            EACH(r, n) {
                normalize(x + (at + r) * C, layer->ln_2_weight,
                          layer->ln_2_bias, m->epsilon, C, desk.row);
                desk.sizes[r] =
                    prepare(kind, desk.row, C, desk.rows + r * narrow);
            }
            BARRIER
            multiply(kind, me, &layer->c_fc, desk.rows, desk.sizes,
                     desk.wide, n, (int)m->activation, desk.sums);
            BARRIER
            EACH(r, n)
            desk.sizes[r] = prepare(kind, desk.wide + r * I, I,
                                    desk.rows + r * broad);
            BARRIER
            multiply(kind, me, &layer->c_mlp, desk.rows, desk.sizes,
                     x + at * C, n, ADD, desk.sums);
            BARRIER
        }
        memory.keys += memory.alone * n_sequences * H * keys_of_head;
        memory.values += memory.alone * n_sequences * H * values_of_head;
    }
}

// Sixteen columns of a matrix as words. For int8 each is rounded to steps of
// its own: its largest number becomes 127 or -127. Returns the bits of the
// largest number, which may not be finite.
INLINE uint32_t pack_block(int kind, const float *weight, long row_step,
                       long column_step, const float *shift, long n_in,
                       long n_columns, uint32_t *out, float *scales,
                       int32_t *totals) {
#define NUMBER(I) (weight[(I) * row_step + c * column_step] - shift[I])
    uint32_t sizes[WIDE] = {0}, largest = 0;
    if (kind == INT8) {
        for (long i = 0; i < n_in; i++)
            for (long c = 0; c < n_columns; c++)
                sizes[c] = larger(sizes[c], size_of(NUMBER(i)));
        for (long c = 0; c < WIDE; c++) {
            float step = as_float(sizes[c]) / 127;
            largest = larger(sizes[c], size_of(127 * step));
            if (largest >= INFINITE) return largest;
            scales[c] = step >= FLT_MIN ? step : 1;
            totals[c] = 0;
        }
    }
    for (long i = 0; i < n_in; i += per_word(kind), out += WIDE)
        for (long c = 0; c < n_columns; c++) {
            if (kind == FLOAT32) {
                float number = NUMBER(i);
                memcpy(out + c, &number, sizeof number);
                sizes[c] = larger(sizes[c], size_of(number));
            } else if (kind == BFLOAT16) {
                float first = NUMBER(i), next = 0;
                if (i + 1 < n_in) next = NUMBER(i + 1);
                out[c] = as_bfloat16(first) | (uint32_t)as_bfloat16(next)
                                                  << 16;
                sizes[c] = larger(sizes[c],
                                  larger(size_of(first), size_of(next)));
            } else {
                uint32_t word = 0;
                for (long k = 0; k < least(4, n_in - i); k++) {
                    int32_t steps =
                        (int32_t)nearbyintf(NUMBER(i + k) / scales[c]);
                    totals[c] += steps;
                    word |= (uint32_t)(uint8_t)steps << 8 * k;
                }
                out[c] = word;
            }
        }
    for (long c = 0; c < WIDE; c++) largest = larger(largest, sizes[c]);
    return largest;
}

static struct worker worker(void) {
#ifdef _OPENMP
    return (struct worker){omp_get_thread_num(), omp_get_num_threads()};
#else
    return (struct worker){0, 1};
#endif
}

// Packs a matrix whose number (i, c) lies at `i * row_step + c * column_step`;
// from row i, `shift` i is taken off. `out` and the others begin as zeros.
// Returns 0, or 1 where a number, or what it is rounded to, is not finite.
int pack(int kind, const float *weight, long row_step, long column_step,
         const float *shift, long n_in, long n_out, uint32_t *out,
         float *scales, int32_t *totals, long n_workers) {
    long n_words = pieces(n_in, per_word(kind));
    uint32_t limit = kind == BFLOAT16 ? INFINITE - 0x8000 : INFINITE;
    int failed = 0;
#pragma omp parallel num_threads(n_workers) reduction(| : failed)
    {
        struct worker me = worker();
        EACH(block, pieces(n_out, WIDE)) {
            long at = block * WIDE, n_columns = least(WIDE, n_out - at);
            uint32_t largest;
#define PACK(KIND, STEP)                                                      \
    largest = pack_block(KIND, weight + at * (STEP), row_step, STEP, shift,   \
                         n_in, n_columns, out + at * n_words, scales + at,    \
                         totals + at)
#define PACK_BY(STEP)                                                         \
    if (kind == FLOAT32) PACK(FLOAT32, STEP);                                 \
    else if (kind == BFLOAT16) PACK(BFLOAT16, STEP);                          \
    else PACK(INT8, STEP)
            if (column_step == 1) {  // known, it makes for faster code
                PACK_BY(1);
            } else {
                PACK_BY(column_step);
            }
            failed |= largest >= limit;
        }
    }
    return failed;
}

// y = x W + b, with x (n_rows, n_in) and y (n_rows, n_out), all float32.
// Returns 0, or 1 where there is no memory.
int product(int kind, const struct matrix *m, const float *x, float *y,
            long n_rows, long n_workers) {
    long n_words = pieces(m->n_in, per_word(kind));
    long slab = least(n_rows, SLAB);
    uint32_t *rows = malloc(slab * n_words * sizeof *rows);
    float *sizes = malloc(slab * sizeof *sizes);
    words *sums = aligned_alloc(64, n_workers * slab * sizeof *sums);
    int failed = !rows || !sizes || !sums;
#pragma omp parallel num_threads(n_workers) if (!failed)
    for (long at = 0; !failed && at < n_rows; at += SLAB) {
        struct worker me = worker();
        long n = least(SLAB, n_rows - at);
        EACH(r, n)
        sizes[r] = prepare(kind, x + (at + r) * m->n_in, m->n_in,
                           rows + r * n_words);
        BARRIER
        multiply(kind, me, m, rows, sizes, y + at * m->n_out, n, STORE,
                 sums + me.rank * slab);
        BARRIER
    }
    free(rows), free(sizes), free(sums);
    return failed;
}

// Runs the layers: x (B, T, C), the stream, is changed in place, and what is
// new goes into memory. `real` is (B, past + T), 1 where there is a token and 0
// for padding; NULL: all are. Returns 0, or 1 where there is no memory.
int run_layers(const struct model *m, float *x, struct memory *memory,
               long n_sequences, long n_new, const uint8_t *real,
               long n_workers) {
    const int kind = (int)m->kind;
    const long C = m->n_embd, I = m->n_inner, D = C / m->n_head;
    const long n_rows = n_sequences * n_new, slab = least(n_rows, SLAB);
    const long n_keys = pieces(memory->past + n_new, WIDE) * WIDE;
    const long n_scores = TILE * (n_keys + most(n_keys, D));
    const long n_wide = most(n_rows * 3 * C, slab * I);
    struct desk shared = {
        .rows = malloc(slab * pieces(most(C, I), per_word(kind)) *
                       sizeof(uint32_t)),
        .sizes = malloc(slab * sizeof(float)),
        .wide = malloc(n_wide * sizeof(float)),
        .mixed = malloc(n_rows * C * sizeof(float)),
        .scores = malloc(n_workers * n_scores * sizeof(float)),
        .sums = aligned_alloc(64, n_workers * slab * sizeof(words)),
        .row = malloc(n_workers * C * sizeof(float)),
    };
    int failed = !shared.rows || !shared.sizes || !shared.wide ||
                 !shared.mixed || !shared.scores || !shared.sums ||
                 !shared.row;
#pragma omp parallel num_threads(n_workers) if (!failed)
    if (!failed) {
        struct worker me = worker();
        struct desk desk = shared;
        desk.scores += me.rank * n_scores;
        desk.sums += me.rank * slab;
        desk.row += me.rank * C;
        run(me, m, x, *memory, n_sequences, n_new, real, desk);
    }
    free(shared.rows), free(shared.sizes), free(shared.wide);
    free(shared.mixed), free(shared.scores), free(shared.sums);
    free(shared.row);
    return failed;
}
