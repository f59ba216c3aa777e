/* Write CSV: a delimiter, `"`, LF, and only the quotes that keep NULL (nothing) and empty text
 * (`""`) apart. */
#ifndef EMSQRT_CSV_WRITE_H
#define EMSQRT_CSV_WRITE_H

#include "csv.h"
#include "csv_types.h"

/* Write the rows of `columns` from `start` on whose bit in `keep` is set (every row when it is
 * NULL), until the next one does not fit the `size` bytes of `out`. Return where to continue. */
size_t em_csv_format(const em_type *types, uint8_t delimiter, const em_columns *columns,
                     size_t start, const uint8_t *keep, uint8_t *out, size_t size, size_t *written);

/* How to rewrite records: unchanged, or a selection of their fields. */
typedef struct {
    em_dialect dialect;     /* of the records */
    const uint32_t *fields; /* NULL: whole records, unchanged */
    uint8_t delimiter;      /* of the output */
    const uint32_t
        *instead; /* NULL, or for each of `fields` the field that replaces it when it is empty */
    size_t field_count;   /* of `fields` */
    size_t record_fields; /* of a record */
    em_span *spans;       /* scratch, `record_fields` of them */
} em_csv_writer;

/* Write one record without its line end; false when it does not fit `size` bytes. */
bool em_csv_write_line(const em_csv_writer *writer, const uint8_t *line, size_t line_size,
                       uint8_t *out, size_t size, size_t *written);

/* Write a text as a field, quoted when it needs to be; -1 when it does not fit `size` bytes. */
ptrdiff_t em_csv_write_text(const uint8_t *text, size_t text_size, uint8_t delimiter, uint8_t *out,
                            size_t size);

/* Write a value of a non-text column, without quotes; EM_CELL_BYTES are enough. */
enum { EM_CELL_BYTES = 64 };
size_t em_write_value(const em_type *type, const void *value, uint8_t *out);

/* Write bytes in base64; -1 when they do not fit `size` bytes. */
ptrdiff_t em_write_base64(const uint8_t *octets, size_t count, uint8_t *out, size_t size);

#endif
