// The rows of a block, for Native.scala; one thread.
#include <stdlib.h>

#include "conjugate.h"
#include "errors.h"
#include "group.h"

static void *space(size_t bytes) { return aligned_alloc(64, (bytes + 63) / 64 * 64); }

// Rows by descending order of their systems, so that those solved together are alike.
static int sort_rows(const Problem *p, const Block *b, int rows, int longest_left_out, int32_t *sorted) {
    int32_t *next = calloc(p->rank + 2, 4);
    if (!next) return -1;
    int kept = 0;
    for (int i = 0; i < rows; i++) {
        int n = b->starts[i + 1] - b->starts[i];
        if (n > longest_left_out) next[p->rank - order_of(p, n) + 1]++, kept++;
    }
    for (int k = 0; k <= p->rank; k++) next[k + 1] += next[k];
    for (int i = 0; i < rows; i++) {
        int n = b->starts[i + 1] - b->starts[i];
        if (n > longest_left_out) sorted[next[p->rank - order_of(p, n)]++] = i;
    }
    free(next);
    return kept;
}

static int solve_exactly(const Problem *p, const Block *b, int rows, int longest_left_out, float *factors,
                         double *loss) {
    int patch_rows = p->width > PATCH ? p->width : PATCH, padded = round_up(p->rank, ROWS);
    size_t matrix = (size_t)4 * padded * p->width;
    int32_t *sorted = space((size_t)4 * rows);
    Group g = {
        .patch = space((size_t)4 * patch_rows * p->width),
        .normals = space(LANES * matrix),
        .rights = space((size_t)4 * LANES * p->width),
        .system = space(sizeof(vec) * system_vectors(padded / TILE)),
        .solution = space(sizeof(vec) * p->width),
    };
    int result = NO_MEMORY;
    if (sorted && g.patch && g.normals && g.rights && g.system && g.solution) {
        int kept = sort_rows(p, b, rows, longest_left_out, sorted);
        result = kept < 0 ? NO_MEMORY : SOLVED;
        for (int i = 0; i < kept && result == SOLVED; i += LANES) {
            int count = kept - i < LANES ? kept - i : LANES;
            if (!solve_group(p, b, sorted + i, count, &g, factors, loss)) result = NOT_POSITIVE_DEFINITE;
        }
    }
    free(sorted), free(g.patch), free(g.normals), free(g.rights), free(g.system), free(g.solution);
    return result;
}

static float *whole_base(const Problem *p) {
    float *base = space((size_t)4 * p->rank * p->width);
    if (!base) return NULL;
    memset(base, 0, (size_t)4 * p->rank * p->width);
    for (int i = 0; i < p->rank; i++)
        for (int j = 0; j <= i; j++) base[i * p->width + j] = base[j * p->width + i] = p->base[i * p->rank + j];
    return base;
}

static int solve_conjugate(const Problem *p, const Block *b, int rows, int longest, float *factors, double *loss) {
    size_t vector = (size_t)4 * p->width;
    float *vectors = space(5 * vector), *x = vectors + 4 * p->width;
    Conjugate c = {
        .patch = space(LONGEST * vector),
        .confidence = space(4 * LONGEST),
        .weights = space(4 * LONGEST),
        .right = vectors,
        .residual = vectors + p->width,
        .direction = vectors + 2 * p->width,
        .image = vectors + 3 * p->width,
        .base = p->implicit ? whole_base(p) : NULL,
    };
    int result = NO_MEMORY;
    if (vectors && c.patch && c.confidence && c.weights && (c.base || !p->implicit)) {
        memset(vectors, 0, 5 * vector);
        for (int i = 0; i < rows; i++)
            if (b->starts[i + 1] - b->starts[i] <= longest) {
                memcpy(x, factors + (size_t)i * p->rank, 4 * p->rank);
                *loss += conjugate(p, b, i, &c, x);
                memcpy(factors + (size_t)i * p->rank, x, 4 * p->rank);
            }
        result = SOLVED;
    }
    free(vectors), free(c.patch), free(c.confidence), free(c.weights), free(c.base);
    return result == SOLVED ? solve_exactly(p, b, rows, longest, factors, loss) : result;
}

// Native.solveRows: addresses of what ratings.h says, factors [rows, rank] in and out, loss one double. Rows of up to
// conjugate_up_to ratings, LONGEST at most, are improved by conjugate gradient; 0 solves every row exactly.
int32_t Java_insitu_recommend_als_Native_00024_solveRows(void *environment, void *self, int32_t rank, float reg,
                                                     uint8_t implicit, float alpha, int32_t conjugate_up_to,
                                                     int32_t rows, int64_t base, int64_t starts, int64_t sources,
                                                     int64_t ratings, int64_t table, int64_t factors, int64_t loss) {
    (void)environment, (void)self;
    Problem p = {rank, round_up(rank, LANES), reg, implicit, alpha, (const float *)base};
    Block b = {(const int32_t *)starts, (const int32_t *)sources, (const float *)ratings, (const float *)table};
    int longest = conjugate_up_to < LONGEST ? conjugate_up_to : LONGEST;
    *(double *)loss = 0;
    return longest ? solve_conjugate(&p, &b, rows, longest, (float *)factors, (double *)loss)
                   : solve_exactly(&p, &b, rows, 0, (float *)factors, (double *)loss);
}
