// The fastest rates at which a machine can read memory and multiply.
//
// Nothing here computes anything useful. Each function has only the work whose
// rate it measures, so no program that does more can be faster.

#include <omp.h>
#include <string.h>
#ifdef __AVX512F__
#include <immintrin.h>
#define VECTOR 64  // bytes of a register
#elif defined __AVX__
#define VECTOR 32
#else
#define VECTOR 16
#endif
#ifdef __x86_64__
#define IN_REGISTER "+v"
#elif defined __aarch64__
#define IN_REGISTER "+w"
#else
#define IN_REGISTER "+m"
#endif

#define INLINE static inline __attribute__((always_inline))
#define UNROLL _Pragma("GCC unroll 16")
#define N_SUMS 12  // enough to hide the latency of a product, in registers
#define LINES 4    // cache lines that are read from a stream in turn

typedef unsigned long line __attribute__((vector_size(64)));
typedef float floats __attribute__((vector_size(VECTOR)));

static line sink;  // keeps the compiler from leaving out the loops

// Read n lines as several streams, each of which reads its part in order.
INLINE line read_lines(const line *data, long n, int n_streams, int locality,
                       long distance) {
    line found[8] = {0};
    long part = n / n_streams / LINES * LINES;
    for (long i = 0; i < part; i += LINES) {
        UNROLL
        for (int stream = 0; stream < n_streams; stream++) {
            const line *at = data + stream * part + i;
            UNROLL
            for (int j = 0; j < LINES; j++) {
                // Beyond the end, a prefetch does nothing.
                if (locality == 0) __builtin_prefetch(at + j + distance, 0, 0);
                if (locality == 2) __builtin_prefetch(at + j + distance, 0, 2);
                if (locality == 3) __builtin_prefetch(at + j + distance, 0, 3);
                found[(stream * LINES + j) % 8] ^= at[j];
            }
        }
    }
    for (int i = 1; i < 8; i++) found[0] ^= found[i];
    return found[0];
}

static line read_form(const line *data, long n, int n_streams, int locality,
                      long distance) {
#define FORM(S, L) \
    if (n_streams == S && locality == L) \
        return read_lines(data, n, S, L, distance);
#define FORMS(S) FORM(S, -1) FORM(S, 0) FORM(S, 2) FORM(S, 3)
    FORMS(1) FORMS(2) FORMS(4) FORMS(8)
    return (line){0};
}

// Read n_bytes with each thread's share in one piece, n_passes times, and
// store the seconds of each. Each thread leaves out less than 4 KB at its end.
void read_memory(const char *data, long n_bytes, int n_threads, int n_streams,
                 int locality, long distance, int n_passes, double *seconds) {
    long n = n_bytes / (long)sizeof(line);
    for (int pass = 0; pass < n_passes; pass++) {
        double began = omp_get_wtime();
#pragma omp parallel num_threads(n_threads)
        {
            long rank = omp_get_thread_num(), count = omp_get_num_threads();
            long first = n * rank / count, last = n * (rank + 1) / count;
            line found = read_form((const line *)data + first, last - first,
                                   n_streams, locality, distance);
#pragma omp critical
            sink ^= found;
        }
        seconds[pass] = omp_get_wtime() - began;
    }
}

// Multiply and add in registers, n times N_SUMS vectors.
INLINE float multiply_in_registers(int kind, long n, int some) {
    floats sums[N_SUMS] = {0}, a, b;
    memset(&a, some, sizeof a);
    memset(&b, 1, sizeof b);
    // The compiler must neither multiply only once, before the loop, nor see
    // that all sums are equal.
    UNROLL
    for (int j = 0; j < N_SUMS; j++) __asm__ volatile("" : IN_REGISTER(sums[j]));
    for (long i = 0; i < n; i++) {
        __asm__ volatile("" : IN_REGISTER(a), IN_REGISTER(b));
        UNROLL
        for (int j = 0; j < N_SUMS; j++) {
            if (kind == 0) sums[j] += a * b;
#ifdef __AVX512BF16__
            if (kind == 1)
                sums[j] = (floats)_mm512_dpbf16_ps(
                    (__m512)sums[j], (__m512bh)a, (__m512bh)b);
#endif
#ifdef __AVX512VNNI__
            if (kind == 2)
                sums[j] = (floats)_mm512_dpbusd_epi32(
                    (__m512i)sums[j], (__m512i)a, (__m512i)b);
#endif
        }
    }
    UNROLL
    for (int j = 1; j < N_SUMS; j++) sums[0] += sums[j];
    return sums[0][0];
}

// Return operations per second, counting a product and its addition as two; 0
// if this processor has no such instruction. kind: 0 float32, 1 bfloat16, 2
// int8.
double multiply(int kind, long n, int n_threads) {
#ifndef __AVX512BF16__
    if (kind == 1) return 0;
#endif
#ifndef __AVX512VNNI__
    if (kind == 2) return 0;
#endif
    int count = 1, pairs = kind == 0 ? 1 : kind == 1 ? 2 : 4;  // in a lane
    float total = 0;
    double began = omp_get_wtime();
#pragma omp parallel num_threads(n_threads)
    {
        int some = omp_get_thread_num() & 1;
        float found = kind == 0   ? multiply_in_registers(0, n, some)
                      : kind == 1 ? multiply_in_registers(1, n, some)
                                  : multiply_in_registers(2, n, some);
#pragma omp critical
        {
            total += found;
            count = omp_get_num_threads();
        }
    }
    double seconds = omp_get_wtime() - began;
    sink[0] += total > 1;
    return 2.0 * VECTOR / sizeof(float) * pairs * N_SUMS * n * count / seconds;
}
