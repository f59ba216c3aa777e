/* The separators and line ends outside quotes of a piece of CSV that starts at a record's start. */
#ifndef EMSQRT_CSV_INDEX_H
#define EMSQRT_CSV_INDEX_H

#include "csv.h"

enum { EM_INDEX_BYTES = 4096, EM_INDEX_SPARE = 12 };

typedef struct {
    /* offsets of separators and line ends, ascending; then unused entries */
    uint32_t marks[EM_INDEX_BYTES + EM_INDEX_SPARE];
    /* indices of the marks that are line ends (of a CRLF its CR); then one unused entry */
    uint16_t line_ends[EM_INDEX_BYTES + 1];
    size_t mark_count, line_count;
} em_csv_index;

/* Find the marks of data[start..size), in at most EM_INDEX_BYTES of it, up to a stray quote. */
void em_csv_find_marks(em_csv_index *index, const uint8_t *data, size_t start, size_t size,
                       em_dialect dialect);

#endif
