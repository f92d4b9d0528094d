// Vectors of floats as wide as the processor's registers; the compiler makes what the target lacks.
#pragma once

#include <stdint.h>
#include <string.h>

#ifdef __AVX512F__
#define LANES 16
#define LOW 0, 16, 1, 17, 2, 18, 3, 19, 4, 20, 5, 21, 6, 22, 7, 23
#define HIGH 8, 24, 9, 25, 10, 26, 11, 27, 12, 28, 13, 29, 14, 30, 15, 31
#else
#define LANES 8
#define LOW 0, 8, 1, 9, 2, 10, 3, 11
#define HIGH 4, 12, 5, 13, 6, 14, 7, 15
#endif

typedef float vec __attribute__((vector_size(4 * LANES)));
typedef int32_t ivec __attribute__((vector_size(4 * LANES)));

// A vector anywhere in memory.
typedef float loose __attribute__((vector_size(4 * LANES), aligned(4)));

static inline int round_up(int n, int to) { return (n + to - 1) / to * to; }

static inline float sum(vec v) {
#pragma clang fp reassociate(on)
    float total = 0;
    for (int i = 0; i < LANES; i++) total += v[i];
    return total;
}

// In double precision: losses are differences of sums of squares.
static inline double dot(const float *a, const float *b, int n) {
#pragma clang fp reassociate(on)
    double total = 0;
    for (int i = 0; i < n; i++) total += (double)a[i] * b[i];
    return total;
}

// Rows become columns. Each step rotates the bits of (row, column) by one place.
static inline void transpose(vec t[LANES]) {
#pragma unroll
    for (int step = 1; step < LANES; step *= 2) {
        vec u[LANES];
#pragma unroll
        for (int i = 0; i < LANES / 2; i++) {
            u[2 * i] = __builtin_shufflevector(t[i], t[i + LANES / 2], LOW);
            u[2 * i + 1] = __builtin_shufflevector(t[i], t[i + LANES / 2], HIGH);
        }
        memcpy(t, u, sizeof u);
    }
}
