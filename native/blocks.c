// Ratings by row, for Native.scala; one thread. Errors are those of errors.h.
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "errors.h"

typedef struct {
    uint64_t key;
    int32_t at;  // the rating's place
} Entry;

#define DIGIT_BITS 11
#define DIGITS (1 << DIGIT_BITS)

static int32_t floor_mod(int32_t id, int32_t blocks) {
    int32_t rest = id % blocks;
    return rest < 0 ? rest + blocks : rest;
}

static int64_t floor_div(int32_t id, int32_t blocks) { return ((int64_t)id - floor_mod(id, blocks)) / blocks; }

// Stable, by digits from the last; `entries` and `spare` are of the same size. Gives whichever is sorted.
static Entry *radix_sort(Entry *entries, Entry *spare, int32_t count, uint64_t most) {
    for (int shift = 0; shift < 64 && most >> shift; shift += DIGIT_BITS) {
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

// Numbers for ids, by block and then ascending.
typedef struct {
    int32_t blocks;
    int64_t first, stride;
} Keys;

static Keys keys_of(const int32_t *ids, int32_t count, int32_t blocks) {
    int32_t least = ids[0], most = ids[0];
    for (int32_t i = 1; i < count; i++) {
        least = ids[i] < least ? ids[i] : least;
        most = ids[i] > most ? ids[i] : most;
    }
    int64_t first = floor_div(least, blocks);
    return (Keys){blocks, first, floor_div(most, blocks) - first + 1};
}

static uint64_t key(Keys k, int32_t id) {
    return (uint64_t)(floor_mod(id, k.blocks) * k.stride + floor_div(id, k.blocks) - k.first);
}

static uint64_t last_key(Keys k) { return (uint64_t)(k.blocks * k.stride - 1); }

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
    for (int32_t i = 0; i < count; i++) starts[floor_mod(rows[i], blocks) + 1]++;
    for (int32_t b = 0; b < blocks; b++) starts[b + 1] += starts[b];
    for (int32_t i = 0; i < count; i++) {
        int32_t b = floor_mod(rows[i], blocks);
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
    int result = NO_MEMORY;
    if (entries && spare && source) {
        Keys by_column = keys_of(columns, count, column_blocks), by_row = keys_of(rows, count, 1);
        for (int32_t i = 0; i < count; i++) entries[i] = (Entry){key(by_column, columns[i]), i};
        Entry *sorted = radix_sort(entries, spare, count, last_key(by_column));
        int32_t distinct = 0;
        memset(table_starts, 0, sizeof *table_starts * (column_blocks + 1));
        for (int32_t i = 0; i < count; i++) {
            if (i == 0 || sorted[i].key != sorted[i - 1].key) {
                table[distinct] = columns[sorted[i].at];
                table_starts[floor_mod(table[distinct], column_blocks) + 1]++;
                distinct++;
            }
            source[sorted[i].at] = distinct - 1;
        }
        for (int32_t b = 0; b < column_blocks; b++) table_starts[b + 1] += table_starts[b];
        sizes[1] = distinct;
        for (int32_t i = 0; i < count; i++) sorted[i].key = key(by_row, rows[sorted[i].at]);
        sorted = radix_sort(sorted, sorted == entries ? spare : entries, count, last_key(by_row));
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
    free(entries), free(spare), free(source);
    return result;
}
