/* The model's arithmetic for WebAssembly, on vectors of four numbers. What
 * each function computes stands, in plain JavaScript, in the file that is
 * named with it. `book/live_kernels.py` compiles this file.
 *
 * All arrays are float32, row by row, unless it says otherwise. */

#include <wasm_simd128.h>

#define EXPORT(name) __attribute__((export_name(#name))) void name

typedef const float *numbers;
typedef unsigned short bfloat16; /* the upper half of a float32 */

/* With relaxed SIMD a processor may multiply and add in one step. */
#ifdef __wasm_relaxed_simd__
#define MULTIPLY_ADD(a, b, c) wasm_f32x4_relaxed_madd(a, b, c)
#else
#define MULTIPLY_ADD(a, b, c) wasm_f32x4_add(wasm_f32x4_mul(a, b), c)
#endif

static inline float sum_of(v128_t x) {
    return wasm_f32x4_extract_lane(x, 0) + wasm_f32x4_extract_lane(x, 1) +
           wasm_f32x4_extract_lane(x, 2) + wasm_f32x4_extract_lane(x, 3);
}

/* ---- linear.py: products with a matrix ---------------------------------- */

/* A matrix lies in panels: PANEL columns, and of these row after row. So each
 * product reads memory from one end to the other. */
#define PANEL 8

typedef struct {
    v128_t first, second;
} row_of_panel;

/* The eight numbers of one row of a panel. */
static inline row_of_panel load_float32(const void *panel, int i) {
    const float *at = (const float *)panel + (long)i * PANEL;
    return (row_of_panel){wasm_v128_load(at), wasm_v128_load(at + 4)};
}

/* As bfloat16, number j lies beside number j + 4 in one lane of 32 bits; so a
 * shift widens the first four, and a mask the others. */
static inline row_of_panel load_bfloat16(const void *panel, int i) {
    v128_t both = wasm_v128_load((const bfloat16 *)panel + (long)i * PANEL);
    v128_t upper = wasm_i32x4_splat((int)0xffff0000);
    return (row_of_panel){wasm_i32x4_shl(both, 16),
                          wasm_v128_and(both, upper)};
}

/* Write up to eight numbers: the last panel may have fewer columns. */
static inline void store(float *y, v128_t first, v128_t second, int n) {
    if (n >= PANEL) {
        wasm_v128_store(y, first);
        wasm_v128_store(y + 4, second);
        return;
    }
    float all[PANEL];
    wasm_v128_store(all, first);
    wasm_v128_store(all + 4, second);
    for (int j = 0; j < n; j++) y[j] = all[j];
}

/* The bias of up to eight columns, or zeros. */
static inline row_of_panel start(numbers bias, int n) {
    float all[PANEL] = {0};
    for (int j = 0; bias && j < n && j < PANEL; j++) all[j] = bias[j];
    return (row_of_panel){wasm_v128_load(all), wasm_v128_load(all + 4)};
}

/* One row of x, and one panel. Four rows of the panel at a time, so that no
 * addition has to wait for the one before it. */
#define ONE_ROW(load)                                                       \
    v128_t a[4] = {bias.first}, b[4] = {bias.second};                       \
    for (int k = 1; k < 4; k++)                                             \
        a[k] = b[k] = wasm_f32x4_splat(0);                                  \
    int i = from;                                                           \
    for (; i + 4 <= to; i += 4)                                             \
        for (int k = 0; k < 4; k++) {                                       \
            v128_t factor = wasm_v128_load32_splat(x + i + k);              \
            row_of_panel w = load(panel, i + k);                            \
            a[k] = MULTIPLY_ADD(w.first, factor, a[k]);                     \
            b[k] = MULTIPLY_ADD(w.second, factor, b[k]);                    \
        }                                                                   \
    for (; i < to; i++) {                                                   \
        v128_t factor = wasm_v128_load32_splat(x + i);                      \
        row_of_panel w = load(panel, i);                                    \
        a[0] = MULTIPLY_ADD(w.first, factor, a[0]);                         \
        b[0] = MULTIPLY_ADD(w.second, factor, b[0]);                        \
    }                                                                       \
    store(y,                                                                \
          wasm_f32x4_add(wasm_f32x4_add(a[0], a[1]),                        \
                         wasm_f32x4_add(a[2], a[3])),                       \
          wasm_f32x4_add(wasm_f32x4_add(b[0], b[1]),                        \
                         wasm_f32x4_add(b[2], b[3])),                       \
          n)

/* ROWS rows of x, and one panel, each row of which is read once for all. */
#define SOME_ROWS(load, ROWS)                                               \
    v128_t a[ROWS], b[ROWS];                                                \
    for (int k = 0; k < ROWS; k++) a[k] = bias.first, b[k] = bias.second;   \
    for (int i = from; i < to; i++) {                                       \
        row_of_panel w = load(panel, i);                                    \
        for (int k = 0; k < ROWS; k++) {                                    \
            v128_t factor = wasm_v128_load32_splat(x + k * I + i);          \
            a[k] = MULTIPLY_ADD(w.first, factor, a[k]);                     \
            b[k] = MULTIPLY_ADD(w.second, factor, b[k]);                    \
        }                                                                   \
    }                                                                       \
    for (int k = 0; k < ROWS; k++) store(y + k * O, a[k], b[k], n)

#define PRODUCTS(load)                                                      \
    static void load##_1(const void *panel, numbers x, float *y,            \
                         row_of_panel bias, int from, int to, int n) {      \
        ONE_ROW(load);                                                      \
    }                                                                       \
    static void load##_2(const void *panel, numbers x, float *y,            \
                         row_of_panel bias, int from, int to, int n, int I, \
                         int O) {                                           \
        SOME_ROWS(load, 2);                                                 \
    }                                                                       \
    static void load##_4(const void *panel, numbers x, float *y,            \
                         row_of_panel bias, int from, int to, int n, int I, \
                         int O) {                                           \
        SOME_ROWS(load, 4);                                                 \
    }

PRODUCTS(load_float32)
PRODUCTS(load_bfloat16)

/* y (T, O) = x (T, I) @ W + bias, with the rows `from` to `to` of W (I, O) and
 * these columns of x. `bias` may be 0. */
#define LINEAR(name, load, type)                                            \
    EXPORT(name)(float *y, numbers x, const type *matrix, numbers bias,     \
                 int T, int I, int O, int from, int to) {                   \
        for (int o = 0; o < O; o += PANEL) {                                \
            const type *panel = matrix + (long)o * I;                       \
            row_of_panel first = start(bias ? bias + o : 0, O - o);         \
            int t = 0, n = O - o;                                           \
            for (; t + 4 <= T; t += 4)                                      \
                load##_4(panel, x + t * I, y + t * O + o, first, from, to,  \
                         n, I, O);                                          \
            for (; t + 2 <= T; t += 2)                                      \
                load##_2(panel, x + t * I, y + t * O + o, first, from, to,  \
                         n, I, O);                                          \
            for (; t < T; t++)                                              \
                load##_1(panel, x + t * I, y + t * O + o, first, from, to,  \
                         n);                                                \
        }                                                                   \
    }

LINEAR(linear_float32, load_float32, float)
LINEAR(linear_bfloat16, load_bfloat16, bfloat16)

/* ---- attention.js ------------------------------------------------------- */

/* scores (H, T, S) of qkv (T, 3C) and keys (S, C). */
EXPORT(scores)(float *y, numbers qkv, numbers keys, int T, int S, int C,
               int H) {
    int D = C / H, vectors = D / 4 * 4;
    float scale = 1 / __builtin_sqrtf((float)D);
    for (int h = 0; h < H; h++)
        for (int t = 0; t < T; t++, y += S) {
            numbers query = qkv + 3 * t * C + h * D;
            for (int s = 0; s < S; s++) {
                if (s > S - T + t) {
                    y[s] = -__builtin_inff();
                    continue;
                }
                numbers key = keys + s * C + h * D;
                v128_t sum = wasm_f32x4_splat(0);
                for (int d = 0; d < vectors; d += 4)
                    sum = MULTIPLY_ADD(wasm_v128_load(query + d),
                                       wasm_v128_load(key + d), sum);
                float score = sum_of(sum);
                for (int d = vectors; d < D; d++) score += query[d] * key[d];
                y[s] = score * scale;
            }
        }
}

/* e^x for x from -87 to 88: 2^n e^r, where x = n ln 2 + r, and the Taylor
 * series of e^r, whose next term is below 1e-8. */
static inline v128_t exponential(v128_t x) {
    x = wasm_f32x4_max(x, wasm_f32x4_splat(-87));
    x = wasm_f32x4_min(x, wasm_f32x4_splat(88));
    v128_t n = wasm_f32x4_nearest(
        wasm_f32x4_mul(x, wasm_f32x4_splat(1.44269504f)));
    /* ln 2 in two parts: the first has so few digits that n times it is
     * exact. */
    v128_t r = wasm_f32x4_sub(
        wasm_f32x4_sub(x, wasm_f32x4_mul(n, wasm_f32x4_splat(0.693359375f))),
        wasm_f32x4_mul(n, wasm_f32x4_splat(-2.12194440e-4f)));
    v128_t sum = wasm_f32x4_splat(1 / 5040.0f);
    const float factors[] = {1 / 720.0f, 1 / 120.0f, 1 / 24.0f, 1 / 6.0f,
                             1 / 2.0f,   1,          1};
    for (int k = 0; k < 7; k++)
        sum = MULTIPLY_ADD(sum, r, wasm_f32x4_splat(factors[k]));
    v128_t power = wasm_i32x4_shl(wasm_i32x4_trunc_sat_f32x4(n), 23);
    return wasm_i32x4_add(sum, power); /* n is added to the exponent */
}

static inline float exponential_of(float x) {
    return wasm_f32x4_extract_lane(exponential(wasm_f32x4_splat(x)), 0);
}

/* Each of N rows of S numbers becomes a distribution. */
EXPORT(softmax_rows)(float *x, int N, int S) {
    int vectors = S / 4 * 4;
    for (int row = 0; row < N; row++, x += S) {
        float highest = -__builtin_inff();
        for (int s = 0; s < S; s++)
            if (x[s] > highest) highest = x[s];
        if (highest == -__builtin_inff()) {
            for (int s = 0; s < S; s++) x[s] = 0;
            continue;
        }
        v128_t top = wasm_f32x4_splat(highest), sums = wasm_f32x4_splat(0);
        v128_t nothing = wasm_f32x4_splat(-__builtin_inff());
        for (int s = 0; s < vectors; s += 4) {
            v128_t score = wasm_v128_load(x + s);
            v128_t share = exponential(wasm_f32x4_sub(score, top));
            share = wasm_v128_andnot(share, wasm_f32x4_eq(score, nothing));
            sums = wasm_f32x4_add(sums, share);
            wasm_v128_store(x + s, share);
        }
        float sum = sum_of(sums);
        for (int s = vectors; s < S; s++) {
            float score = x[s];
            x[s] = score == -__builtin_inff()
                       ? 0
                       : exponential_of(score - highest);
            sum += x[s];
        }
        v128_t total = wasm_f32x4_splat(sum);
        for (int s = 0; s < vectors; s += 4)
            wasm_v128_store(x + s, wasm_f32x4_div(wasm_v128_load(x + s),
                                                  total));
        for (int s = vectors; s < S; s++) x[s] /= sum;
    }
}

/* mixed (T, C) of weights (H, T, S) and values (S, C). */
EXPORT(mix)(float *y, numbers weights, numbers values, int T, int S, int C,
            int H) {
    int D = C / H;
    for (int h = 0; h < H; h++)
        for (int t = 0; t < T; t++, weights += S) {
            float *out = y + t * C + h * D;
            numbers value = values + h * D;
            int end = S - T + t + 1, d = 0;
            for (; d + 16 <= D; d += 16) {
                v128_t a[4] = {0};
                for (int s = 0; s < end; s++) {
                    v128_t weight = wasm_v128_load32_splat(weights + s);
                    for (int k = 0; k < 4; k++)
                        a[k] = MULTIPLY_ADD(
                            weight,
                            wasm_v128_load(value + s * C + d + 4 * k), a[k]);
                }
                for (int k = 0; k < 4; k++)
                    wasm_v128_store(out + d + 4 * k, a[k]);
            }
            for (; d < D; d++) {
                float sum = 0;
                for (int s = 0; s < end; s++)
                    sum += weights[s] * value[s * C + d];
                out[d] = sum;
            }
        }
}

/* ---- layer.js ----------------------------------------------------------- */

/* Layer norm of x (T, C). */
EXPORT(layer_norm)(float *y, numbers x, numbers weight, numbers bias, int T,
                   int C, float epsilon) {
    int vectors = C / 4 * 4;
    for (int t = 0; t < T; t++, x += C, y += C) {
        v128_t sums = wasm_f32x4_splat(0);
        for (int c = 0; c < vectors; c += 4)
            sums = wasm_f32x4_add(sums, wasm_v128_load(x + c));
        float mean = sum_of(sums);
        for (int c = vectors; c < C; c++) mean += x[c];
        mean /= (float)C;
        v128_t means = wasm_f32x4_splat(mean);
        sums = wasm_f32x4_splat(0);
        for (int c = 0; c < vectors; c += 4) {
            v128_t from = wasm_f32x4_sub(wasm_v128_load(x + c), means);
            sums = MULTIPLY_ADD(from, from, sums);
        }
        float variance = sum_of(sums);
        for (int c = vectors; c < C; c++)
            variance += (x[c] - mean) * (x[c] - mean);
        float scale = 1 / __builtin_sqrtf(variance / (float)C + epsilon);
        v128_t scales = wasm_f32x4_splat(scale);
        for (int c = 0; c < vectors; c += 4) {
            v128_t from = wasm_f32x4_sub(wasm_v128_load(x + c), means);
            wasm_v128_store(
                y + c, MULTIPLY_ADD(wasm_f32x4_mul(from, scales),
                                    wasm_v128_load(weight + c),
                                    wasm_v128_load(bias + c)));
        }
        for (int c = vectors; c < C; c++)
            y[c] = (x[c] - mean) * scale * weight[c] + bias[c];
    }
}

/* GELU in its tanh form: x / 2 (1 + tanh u) = x / (1 + e^-2u). */
static inline v128_t gelu(v128_t x) {
    v128_t cube = wasm_f32x4_mul(wasm_f32x4_mul(x, x), x);
    v128_t u = MULTIPLY_ADD(cube, wasm_f32x4_splat(0.044715f), x);
    v128_t power =
        exponential(wasm_f32x4_mul(u, wasm_f32x4_splat(-1.59576912f)));
    return wasm_f32x4_div(x, wasm_f32x4_add(wasm_f32x4_splat(1), power));
}

EXPORT(gelu_new)(float *x, int n) {
    int i = 0;
    for (; i + 4 <= n; i += 4)
        wasm_v128_store(x + i, gelu(wasm_v128_load(x + i)));
    for (; i < n; i++)
        x[i] = wasm_f32x4_extract_lane(gelu(wasm_f32x4_splat(x[i])), 0);
}

/* x += y. */
EXPORT(add)(float *x, numbers y, int n) {
    int i = 0;
    for (; i + 4 <= n; i += 4)
        wasm_v128_store(x + i, wasm_f32x4_add(wasm_v128_load(x + i),
                                              wasm_v128_load(y + i)));
    for (; i < n; i++) x[i] += y[i];
}
