// Ratings by row, for Native.scala; one thread. Errors are those of errors.h.
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "errors.h"

typedef struct {
    uint32_t key;
    int32_t at;  // the rating's place
} Entry;

#define DIGIT_BITS 11
#define DIGITS (1 << DIGIT_BITS)

// Stable, by digits from the last; `entries` and `spare` are of the same size. Gives whichever is sorted.
static Entry *radix_sort(Entry *entries, Entry *spare, int32_t count, uint32_t most) {
    for (int shift = 0; shift < 32 && most >> shift; shift += DIGIT_BITS) {
        int32_t next[DIGITS + 1] = {0};
        for (int32_t i = 0; i < count; i++) next[(entries[i].key >> shift) % DIGITS + 1]++;
        for (int d = 0; d < DIGITS; d++) next[d + 1] += next[d];
        for (int32_t i = 0; i < count; i++) spare[next[(entries[i].key >> shift) % DIGITS]++] = entries[i];
        Entry *sorted = spare;
        spare = entries;
        entries = sorted;
    }
    return entries;
}

// An id's block and its place among all ids of that block, both by division towards minus infinity.
typedef struct {
    int32_t block;
    int32_t quotient;
} Split;

static inline Split split(int32_t id, int32_t blocks) {
    int32_t quotient = id / blocks, block = id % blocks;
    return block < 0 ? (Split){block + blocks, quotient - 1} : (Split){block, quotient};
}

// offsets, [blocks], are such that offsets[block] + quotient numbers all ids between the least and the greatest from 0
// on, by block and then ascending. Gives the greatest number.
static uint32_t number_ids(const int32_t *ids, int32_t count, int32_t blocks, int64_t *offsets) {
    int32_t least = ids[0], most = ids[0];
    for (int32_t i = 1; i < count; i++) {
        least = ids[i] < least ? ids[i] : least;
        most = ids[i] > most ? ids[i] : most;
    }
    Split first = split(least, blocks), last = split(most, blocks);
    int64_t numbered = 0;
    for (int32_t b = 0; b < blocks; b++) {
        int64_t from = first.quotient + (b < first.block), until = last.quotient + (b <= last.block);
        offsets[b] = numbered - from;
        numbered += until - from;
    }
    return numbered - 1;
}

static inline uint32_t number(int32_t id, int32_t blocks, const int64_t *offsets) {
    Split s = split(id, blocks);
    return offsets[s.block] + s.quotient;
}

// Ratings grouped by their row's block. Of block b, `grouped` has from word 3 starts[b] on all rows, then all columns,
// then all values; starts are [blocks + 1].
int32_t Java_insitu_recommend_als_Native_00024_splitRatings(void *environment, void *self, int32_t count,
                                                            int64_t rows_at, int64_t columns_at, int64_t values_at,
                                                            int32_t blocks, int64_t starts_at, int64_t grouped_at) {
    (void)environment, (void)self;
    const int32_t *rows = (const int32_t *)rows_at, *columns = (const int32_t *)columns_at;
    const int32_t *values = (const int32_t *)values_at;
    int32_t *starts = (int32_t *)starts_at, *grouped = (int32_t *)grouped_at;
    int32_t *done = calloc(blocks, sizeof *done);
    if (!done) return NO_MEMORY;
    memset(starts, 0, sizeof *starts * (blocks + 1));
    for (int32_t i = 0; i < count; i++) starts[split(rows[i], blocks).block + 1]++;
    for (int32_t b = 0; b < blocks; b++) starts[b + 1] += starts[b];
    for (int32_t i = 0; i < count; i++) {
        int32_t b = split(rows[i], blocks).block;
        int64_t size = starts[b + 1] - starts[b];
        int32_t *to = grouped + 3 * (int64_t)starts[b] + done[b]++;
        to[0] = rows[i];
        to[size] = columns[i];
        to[2 * size] = values[i];
    }
    free(done);
    return SOLVED;
}

// What InBlock says, of `count` ratings; every array has room for `count`, `starts` for one more, and `table_starts`
// for column_blocks + 1. `sizes` become the numbers of rows and of columns.
int32_t Java_insitu_recommend_als_Native_00024_compressRatings(
    void *environment, void *self, int32_t count, int64_t rows_at, int64_t columns_at, int64_t values_at,
    int32_t column_blocks, int64_t ids_at, int64_t starts_at, int64_t sources_at, int64_t ratings_at,
    int64_t table_at, int64_t table_starts_at, int64_t sizes_at) {
    (void)environment, (void)self;
    const int32_t *rows = (const int32_t *)rows_at, *columns = (const int32_t *)columns_at;
    const int32_t *values = (const int32_t *)values_at;
    int32_t *ids = (int32_t *)ids_at, *starts = (int32_t *)starts_at, *sources = (int32_t *)sources_at;
    int32_t *ratings = (int32_t *)ratings_at, *table = (int32_t *)table_at, *sizes = (int32_t *)sizes_at;
    int32_t *table_starts = (int32_t *)table_starts_at;
    Entry *entries = malloc(sizeof *entries * count), *spare = malloc(sizeof *spare * count);
    int32_t *source = malloc(sizeof *source * count);
    int64_t *offsets = malloc(sizeof *offsets * column_blocks), row_offset;
    int result = NO_MEMORY;
    if (entries && spare && source && offsets) {
        uint32_t most = number_ids(columns, count, column_blocks, offsets);
        for (int32_t i = 0; i < count; i++) entries[i] = (Entry){number(columns[i], column_blocks, offsets), i};
        Entry *sorted = radix_sort(entries, spare, count, most);
        int32_t distinct = 0;
        memset(table_starts, 0, sizeof *table_starts * (column_blocks + 1));
        for (int32_t i = 0; i < count; i++) {
            if (i == 0 || sorted[i].key != sorted[i - 1].key) {
                table[distinct] = columns[sorted[i].at];
                table_starts[split(table[distinct], column_blocks).block + 1]++;
                distinct++;
            }
            source[sorted[i].at] = distinct - 1;
        }
        for (int32_t b = 0; b < column_blocks; b++) table_starts[b + 1] += table_starts[b];
        sizes[1] = distinct;
        most = number_ids(rows, count, 1, &row_offset);
        for (int32_t i = 0; i < count; i++) sorted[i].key = rows[sorted[i].at] + row_offset;
        sorted = radix_sort(sorted, sorted == entries ? spare : entries, count, most);
        distinct = 0;
        for (int32_t i = 0; i < count; i++) {
            int32_t at = sorted[i].at;
            if (i == 0 || sorted[i].key != sorted[i - 1].key) {
                ids[distinct] = rows[at];
                starts[distinct++] = i;
            }
            sources[i] = source[at];
            ratings[i] = values[at];
        }
        starts[distinct] = count;
        sizes[0] = distinct;
        result = SOLVED;
    }
    free(entries), free(spare), free(source), free(offsets);
    return result;
}
