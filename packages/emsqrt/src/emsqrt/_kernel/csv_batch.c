#include "csv_batch.h"

#include <string.h>

enum { FIRST_ROW_BYTES = 16, ROWS_MAX = 1 << 24, ALIGNMENT = 8 };

static size_t aligned(size_t bytes) {
    return (bytes + ALIGNMENT - 1) & ~(size_t)(ALIGNMENT - 1);
}

static size_t bits_bytes(size_t rows) {
    return aligned((rows + 7) / 8);
}

static size_t fixed_bytes(const em_building *column, size_t rows) {
    if (column->type.kind == EM_BOOL) {
        return 2 * bits_bytes(rows);
    }
    return bits_bytes(rows) + aligned(em_is_text(&column->type)
                                          ? (rows + 1) * sizeof(int32_t)
                                          : rows * em_width(column->type.kind));
}

/* Bytes that `rows` rows need, with `text_bytes` of text, or the expected amount when it is NULL.
 */
static size_t needed(const em_batch *batch, size_t rows, const size_t *text_bytes) {
    size_t bytes = ALIGNMENT + rows * sizeof(em_span);
    for (size_t i = 0; i < batch->column_count; i++) {
        const em_building *column = &batch->columns[i];
        bytes += fixed_bytes(column, rows);
        if (em_is_text(&column->type)) {
            bytes += aligned(text_bytes == NULL ? rows * column->row_bytes : text_bytes[i]);
        }
    }
    return bytes;
}

static void place_columns(em_batch *batch, size_t rows, const size_t *text_bytes) {
    uint8_t *at = batch->memory + (0 - (uintptr_t)batch->memory) % ALIGNMENT;
    batch->lines = (em_span *)(void *)at;
    at += rows * sizeof(em_span);
    for (size_t i = 0; i < batch->column_count; i++) {
        em_building *column = &batch->columns[i];
        column->validity = at;
        column->has_null = false;
        memset(at, 0xff, bits_bytes(rows));
        at += bits_bytes(rows);
        column->values = at;
        if (em_is_text(&column->type)) {
            column->ends = (int32_t *)(void *)at;
            column->ends[0] = 0;
            at += aligned((rows + 1) * sizeof(int32_t));
            column->values = at;
            const size_t room = text_bytes == NULL ? rows * column->row_bytes : text_bytes[i];
            column->room = room < INT32_MAX ? room : INT32_MAX;
            at += aligned(room);
        } else {
            at += fixed_bytes(column, rows) - bits_bytes(rows);
        }
    }
    batch->row_count = 0;
    batch->row_capacity = rows;
}

static size_t rows_that_fit(const em_batch *batch) {
    size_t low = 0, high = batch->memory_bytes / sizeof(em_span);
    high = high < ROWS_MAX ? high : ROWS_MAX;
    while (low < high) {
        const size_t middle = high - (high - low) / 2;
        if (needed(batch, middle, NULL) <= batch->memory_bytes) {
            low = middle;
        } else {
            high = middle - 1;
        }
    }
    return low;
}

bool em_batch_begin(em_batch *batch) {
    for (size_t i = 0; i < batch->column_count; i++) {
        em_building *column = &batch->columns[i];
        column->row_bytes = column->row_bytes == 0 ? FIRST_ROW_BYTES : column->row_bytes;
    }
    size_t rows = rows_that_fit(batch);
    if (rows == 0) { /* texts of the last rows were long, those of the next may not be */
        for (size_t i = 0; i < batch->column_count; i++) {
            batch->columns[i].row_bytes = 1;
        }
        rows = rows_that_fit(batch);
    }
    if (rows > 0) {
        place_columns(batch, rows, NULL);
    }
    return rows > 0;
}

bool em_batch_begin_long(em_batch *batch, const size_t *text_bytes) {
    if (needed(batch, 1, text_bytes) > batch->memory_bytes) {
        return false;
    }
    place_columns(batch, 1, text_bytes);
    return true;
}

void em_batch_null(em_batch *batch, size_t index) {
    em_building *column = &batch->columns[index];
    const size_t row = batch->row_count;
    em_clear_bit(column->validity, row);
    column->has_null = true;
    if (em_is_text(&column->type)) {
        column->ends[row + 1] = column->ends[row];
    } else if (column->type.kind == EM_BOOL) {
        em_clear_bit(column->values, row);
    } else {
        const size_t width = em_width(column->type.kind);
        memset(column->values + row * width, 0, width);
    }
}

void em_batch_undo(em_batch *batch) {
    for (size_t i = 0; i < batch->column_count; i++) {
        em_set_bit(batch->columns[i].validity, batch->row_count);
    }
}

em_columns em_batch_view(em_batch *batch, const uint8_t *text) {
    const size_t rows = batch->row_count;
    for (size_t i = 0; i < batch->column_count; i++) {
        em_building *column = &batch->columns[i];
        const bool is_text = em_is_text(&column->type);
        batch->views[i] = (em_column){.kind = column->type.kind,
                                      .offset = 0,
                                      .validity = column->has_null ? column->validity : NULL,
                                      .values = column->values,
                                      .ends = is_text ? column->ends : NULL};
        if (is_text && rows > 0) {
            const size_t mean = (size_t)column->ends[rows] / rows;
            column->row_bytes = mean + mean / 4 + 2;
        }
    }
    return (em_columns){.row_count = rows,
                        .column_count = batch->column_count,
                        .columns = batch->views,
                        .text = text,
                        .lines = batch->lines};
}
