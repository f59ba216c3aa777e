/* The columns of one batch, in Arrow's layout, and where the text of each row is.
 *
 * Everything is a view: nothing here owns memory. All kernels read columns through this header,
 * whether a CSV parser or pyarrow filled them.
 */
#ifndef EMSQRT_COLUMNS_H
#define EMSQRT_COLUMNS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

/* Physical kinds. Dates are I32; timestamps, times and durations I64; decimals 128-bit integers
 * without their scale. */
enum em_kind {
    EM_BOOL, /* one bit a value, least significant first */
    EM_I8,
    EM_I16,
    EM_I32,
    EM_I64,
    EM_U8,
    EM_U16,
    EM_U32,
    EM_U64,
    EM_F32,
    EM_F64,
    EM_DECIMAL, /* 16 bytes, two's complement, little-endian */
    EM_TEXT,    /* UTF-8 */
    EM_BYTES,
    EM_KINDS,
};

/* The narrow form of integers and decimals in packed rows: fewer bytes than the kind's width,
 * because all values are close above `least`. */
typedef struct {
    uint8_t bytes; /* 1, 2, 4 or 8; 0 when values are packed in their full width */
    int64_t least; /* subtracted from each value; 0 when `bytes` is 8 */
} em_narrow;

typedef struct {
    enum em_kind kind;
    em_narrow narrow;
    size_t offset;           /* the first row's index in the three buffers */
    const uint8_t *validity; /* one bit a row; NULL when no row is null */
    const uint8_t *values;
    const int32_t *ends; /* text and bytes only: row r is values[ends[r] .. ends[r + 1]) */
} em_column;

typedef struct {
    uint32_t start, size;
} em_span;

typedef struct {
    size_t row_count;
    size_t column_count;
    const em_column *columns;
    const uint8_t *text;  /* the block that the rows were parsed from, or NULL */
    const em_span *lines; /* each row's record in `text`, without its line end, or NULL */
} em_columns;

/* Bytes of one fixed-width value; 0 for booleans, text and bytes. */
static inline size_t em_width(enum em_kind kind) {
    static const uint8_t widths[EM_KINDS] = {0, 1, 2, 4, 8, 1, 2, 4, 8, 4, 8, 16, 0, 0};
    return widths[kind];
}

/* Copy one value of at most eight bytes. A memcpy() whose size the compiler does not know becomes
 * an instruction that needs dozens of cycles to start. */
static inline void em_copy_word(void *to, const void *from, size_t width) {
    switch (width) {
    case 8:
        memcpy(to, from, 8);
        break;
    case 4:
        memcpy(to, from, 4);
        break;
    case 2:
        memcpy(to, from, 2);
        break;
    case 1:
        memcpy(to, from, 1);
        break;
    default:
        break;
    }
}

/* As em_copy_word(), for a value of any fixed width. */
static inline void em_copy_value(void *to, const void *from, size_t width) {
    if (width == 16) {
        memcpy(to, from, 16);
    } else {
        em_copy_word(to, from, width);
    }
}

static inline bool em_bit(const uint8_t *bits, size_t index) {
    return bits[index >> 3] >> (index & 7) & 1;
}

static inline bool em_is_valid(const em_column *column, size_t row) {
    return column->validity == NULL || em_bit(column->validity, column->offset + row);
}

#endif
