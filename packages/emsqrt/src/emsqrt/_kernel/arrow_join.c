#include "arrow_join.h"

#include <assert.h>
#include <string.h>

#include "columns.h"

enum {
    PREFIX = 8,      /* the continuation mark and the length of the metadata */
    METADATA = 88,   /* the flatbuffer without the entries of its two vectors */
    ENTRY = 16,      /* an entry of either: two int64 */
    ROWS_BYTES = 8,  /* buffers and metadata are padded to multiples of this */
};

static size_t padded(size_t size) {
    return (size + ROWS_BYTES - 1) & ~(size_t)(ROWS_BYTES - 1);
}

static size_t buffers_of(em_layout layout) {
    return layout.form == EM_FORM_TEXT || layout.form == EM_FORM_LARGE_TEXT ? 3 : 2;
}

static size_t end_width(em_layout layout) {
    return layout.form == EM_FORM_TEXT ? sizeof(int32_t) : sizeof(int64_t);
}

bool em_batch_fits(const struct ArrowArray *batch, const em_layout *layouts, size_t columns) {
    /* A struct with NULL rows of its own is no record batch. */
    bool fits = batch->n_children == (int64_t)columns && batch->null_count == 0 &&
                batch->length >= 0 && batch->offset >= 0;
    for (size_t at = 0; fits && at < columns; at++) {
        const struct ArrowArray *column = batch->children[at];
        fits = column->n_buffers == (int64_t)buffers_of(layouts[at]) && column->offset >= 0 &&
               column->length >= batch->offset + batch->length && column->dictionary == NULL;
    }
    return fits;
}

/* ---- reading the columns of a batch ----------------------------------------------------------- */

/* Where the rows of a column start: its own offset, and that of its batch. */
static size_t start_of(const struct ArrowArray *batch, size_t at) {
    return (size_t)(batch->children[at]->offset + batch->offset);
}

static const void *buffer_of(const struct ArrowArray *batch, size_t at, int index) {
    return batch->children[at]->buffers[index];
}

/* The validity of a column that may have NULL; otherwise NULL. */
static const uint8_t *validity_of(const struct ArrowArray *batch, size_t at) {
    return batch->children[at]->null_count == 0 ? NULL : buffer_of(batch, at, 0);
}

static int64_t end_at(const void *ends, em_layout layout, size_t index) {
    return layout.form == EM_FORM_TEXT ? ((const int32_t *)ends)[index]
                                       : ((const int64_t *)ends)[index];
}

static size_t text_bytes(const struct ArrowArray *batch, size_t at, em_layout layout) {
    const void *ends = buffer_of(batch, at, 1);
    const size_t start = start_of(batch, at), rows = (size_t)batch->length;
    if (rows == 0 || ends == NULL) {
        return 0; /* the offsets of an array without rows may be missing */
    }
    return (size_t)(end_at(ends, layout, start + rows) - end_at(ends, layout, start));
}

static size_t rows_of(const struct ArrowArray *batches, size_t count) {
    size_t rows = 0;
    for (size_t i = 0; i < count; i++) {
        rows += (size_t)batches[i].length;
    }
    return rows;
}

static size_t head_bytes(const em_layout *layouts, size_t columns) {
    size_t entries = columns;
    for (size_t at = 0; at < columns; at++) {
        entries += buffers_of(layouts[at]);
    }
    return PREFIX + METADATA + ENTRY * entries;
}

size_t em_message_bound(const struct ArrowArray *batches, size_t count, const em_layout *layouts,
                        size_t columns) {
    const size_t rows = rows_of(batches, count), bits = padded((rows + 7) / 8);
    size_t size = head_bytes(layouts, columns);
    for (size_t at = 0; at < columns; at++) {
        const em_layout layout = layouts[at];
        size += bits;
        if (layout.form == EM_FORM_FIXED) {
            size += padded(rows * layout.width);
        } else if (layout.form == EM_FORM_BITS) {
            size += bits;
        } else {
            size_t bytes = 0;
            for (size_t i = 0; i < count; i++) {
                bytes += text_bytes(&batches[i], at, layout);
            }
            size += padded((rows + 1) * end_width(layout)) + padded(bytes);
        }
    }
    return size;
}

/* ---- bits ------------------------------------------------------------------------------------- */

/* Return 8 bits from bit `at` on; reads a second byte only if they need it. */
static uint8_t eight_bits(const uint8_t *bits, size_t at) {
    const size_t shift = at & 7;
    const uint8_t *from = bits + (at >> 3);
    if (shift == 0) {
        return *from;
    }
    return (uint8_t)(from[0] >> shift | from[1] << (8 - shift));
}

/* Copy `rows` bits from bit `from` to bit `to`, where all bits from `to` on are zero; a source of
 * NULL is all ones. */
static void append_bits(uint8_t *out, size_t to, const uint8_t *bits, size_t from, size_t rows) {
    size_t row = 0;
    /* Batches have multiples of 8 rows, except for the last of a stream. */
    if (to % 8 == 0) {
        const size_t whole = rows / 8;
        if (bits == NULL) {
            memset(out + to / 8, 0xff, whole);
        } else if (from % 8 == 0) {
            memcpy(out + to / 8, bits + from / 8, whole);
        } else {
            for (size_t byte = 0; byte < whole; byte++) {
                out[to / 8 + byte] = eight_bits(bits, from + byte * 8);
            }
        }
        row = whole * 8;
    }
    for (; row < rows; row++) {
        const unsigned bit = bits == NULL ? 1 : em_bit(bits, from + row);
        out[(to + row) / 8] = (uint8_t)(out[(to + row) / 8] | bit << ((to + row) & 7));
    }
}

static size_t ones(const uint8_t *bits, size_t rows) {
    size_t count = 0;
    for (size_t byte = 0; byte < (rows + 7) / 8; byte++) { /* the bits behind the last row are 0 */
        count += (size_t)__builtin_popcount(bits[byte]);
    }
    return count;
}

/* Zero the slots of NULL rows: their bytes are earlier contents of the producer's memory. */
static void clear_slots(uint8_t *values, size_t width, const uint8_t *validity, size_t rows) {
    for (size_t byte = 0; byte < (rows + 7) / 8; byte++) {
        if (validity[byte] == 0xff) {
            continue;
        }
        for (size_t row = byte * 8; row < rows && row < byte * 8 + 8; row++) {
            if (!em_bit(validity, row)) {
                memset(values + row * width, 0, width);
            }
        }
    }
}

/* ---- columns ---------------------------------------------------------------------------------- */

typedef struct {
    const struct ArrowArray *batches;
    size_t count;
    size_t rows; /* of all batches */
} batch_list;

/* Write the validity; return the number of NULL rows, with which it is not needed when 0. */
static size_t write_validity(batch_list all, size_t at, uint8_t *out) {
    bool may_be_null = false;
    for (size_t i = 0; i < all.count; i++) {
        may_be_null |= validity_of(&all.batches[i], at) != NULL;
    }
    if (!may_be_null) {
        return 0;
    }
    memset(out, 0, padded((all.rows + 7) / 8));
    size_t row = 0;
    for (size_t i = 0; i < all.count; i++) {
        const struct ArrowArray *batch = &all.batches[i];
        append_bits(out, row, validity_of(batch, at), start_of(batch, at), (size_t)batch->length);
        row += (size_t)batch->length;
    }
    return all.rows - ones(out, all.rows);
}

static size_t write_fixed(batch_list all, size_t at, size_t width, uint8_t *out) {
    size_t size = 0;
    for (size_t i = 0; i < all.count; i++) {
        const struct ArrowArray *batch = &all.batches[i];
        const size_t bytes = (size_t)batch->length * width;
        if (bytes > 0) {
            const uint8_t *values = buffer_of(batch, at, 1);
            memcpy(out + size, values + start_of(batch, at) * width, bytes);
            size += bytes;
        }
    }
    return size;
}

static size_t write_bits(batch_list all, size_t at, uint8_t *out) {
    const size_t size = (all.rows + 7) / 8;
    memset(out, 0, size);
    size_t row = 0;
    for (size_t i = 0; i < all.count; i++) {
        const struct ArrowArray *batch = &all.batches[i];
        if (batch->length > 0) {
            append_bits(out, row, buffer_of(batch, at, 1), start_of(batch, at),
                        (size_t)batch->length);
            row += (size_t)batch->length;
        }
    }
    return size;
}

/* Write the offsets of texts, those of each batch continuing where the one before ends. */
static size_t write_ends(batch_list all, size_t at, em_layout layout, uint8_t *out) {
    size_t row = 0;
    int64_t base = 0;
    memset(out, 0, end_width(layout));
    for (size_t i = 0; i < all.count; i++) {
        const struct ArrowArray *batch = &all.batches[i];
        const void *ends = buffer_of(batch, at, 1);
        const size_t start = start_of(batch, at), rows = (size_t)batch->length;
        if (rows == 0) {
            continue;
        }
        const int64_t shift = base - end_at(ends, layout, start);
        if (layout.form == EM_FORM_TEXT) {
            const int32_t *from = (const int32_t *)ends + start + 1;
            int32_t *to = (int32_t *)(void *)out + row + 1;
            for (size_t r = 0; r < rows; r++) {
                to[r] = (int32_t)(from[r] + shift);
            }
        } else {
            const int64_t *from = (const int64_t *)ends + start + 1;
            int64_t *to = (int64_t *)(void *)out + row + 1;
            for (size_t r = 0; r < rows; r++) {
                to[r] = from[r] + shift;
            }
        }
        row += rows;
        base = end_at(ends, layout, start + rows) + shift;
    }
    return (all.rows + 1) * end_width(layout);
}

static size_t write_texts(batch_list all, size_t at, em_layout layout, uint8_t *out) {
    size_t size = 0;
    for (size_t i = 0; i < all.count; i++) {
        const struct ArrowArray *batch = &all.batches[i];
        const size_t bytes = text_bytes(batch, at, layout);
        if (bytes > 0) {
            const uint8_t *texts = buffer_of(batch, at, 2);
            const int64_t start = end_at(buffer_of(batch, at, 1), layout, start_of(batch, at));
            memcpy(out + size, texts + start, bytes);
            size += bytes;
        }
    }
    return size;
}

/* ---- the message ------------------------------------------------------------------------------ */

static void put16(uint8_t *to, uint16_t value) {
    memcpy(to, &value, sizeof value);
}

static void put32(uint8_t *to, uint32_t value) {
    memcpy(to, &value, sizeof value);
}

static void put64(uint8_t *to, uint64_t value) {
    memcpy(to, &value, sizeof value);
}

/* Write the prefix and the metadata around their vectors, which the caller has filled. Positions
 * are from the start of the metadata; all 8-byte fields have positions divisible by 8:
 *
 *      0  offset of Message            4  vtable of Message
 *     16  Message: header, bodyLength, version, headerType
 *     40  vtable of RecordBatch       56  RecordBatch: nodes, length, buffers
 *     76  nodes: their number, then   80  entries
 *     80 + 16 n + 4  buffers: their number, then 8 bytes after the last node, their entries */
static void write_metadata(uint8_t *out, size_t nodes, size_t buffers, size_t rows, size_t body) {
    const uint32_t after_nodes = (uint32_t)(80 + ENTRY * nodes);
    const size_t size = METADATA + ENTRY * (nodes + buffers);
    put32(out, UINT32_MAX);
    put32(out + 4, (uint32_t)size);
    uint8_t *data = out + PREFIX;
    memset(data, 0, 76);
    put32(data, 16);
    const uint16_t message[] = {12, 20, 16, 18, 4, 8};
    for (size_t i = 0; i < 6; i++) {
        put16(data + 4 + 2 * i, message[i]);
    }
    put32(data + 16, 16 - 4); /* back to the vtable */
    put32(data + 20, 56 - 20);
    put64(data + 24, body);
    put16(data + 32, 4); /* MetadataVersion.V5 */
    data[34] = 3;        /* MessageHeader.RecordBatch */
    const uint16_t batch[] = {10, 20, 8, 4, 16};
    for (size_t i = 0; i < 5; i++) {
        put16(data + 40 + 2 * i, batch[i]);
    }
    put32(data + 56, 56 - 40);
    put32(data + 60, 76 - 60);
    put64(data + 64, rows);
    put32(data + 72, after_nodes + 4 - 72);
    put32(data + 76, (uint32_t)nodes);
    put32(data + after_nodes, 0);
    put32(data + after_nodes + 4, (uint32_t)buffers);
}

typedef struct {
    uint8_t *entry; /* of the next buffer, in the metadata */
    uint8_t *body;
    size_t at; /* in the body, a multiple of 8 */
    size_t buffers;
} message_writer;

/* Record a buffer that was written at the end of the body, and zero its padding. */
static void add_buffer(message_writer *writer, size_t size) {
    put64(writer->entry, writer->at);
    put64(writer->entry + 8, size);
    memset(writer->body + writer->at + size, 0, padded(size) - size);
    writer->entry += ENTRY;
    writer->at += padded(size);
    writer->buffers++;
}

static void write_column(message_writer *writer, batch_list all, size_t at, em_layout layout,
                         uint8_t *node) {
    uint8_t *validity = writer->body + writer->at;
    const size_t nulls = write_validity(all, at, validity);
    put64(node, all.rows);
    put64(node + 8, nulls);
    add_buffer(writer, nulls == 0 ? 0 : (all.rows + 7) / 8);
    uint8_t *values = writer->body + writer->at;
    switch (layout.form) {
        case EM_FORM_FIXED:
            add_buffer(writer, write_fixed(all, at, layout.width, values));
            if (nulls > 0) {
                clear_slots(values, layout.width, validity, all.rows);
            }
            break;
        case EM_FORM_BITS:
            add_buffer(writer, write_bits(all, at, values));
            for (size_t byte = 0; nulls > 0 && byte < (all.rows + 7) / 8; byte++) {
                values[byte] &= validity[byte];
            }
            break;
        case EM_FORM_TEXT:
        case EM_FORM_LARGE_TEXT:
            add_buffer(writer, write_ends(all, at, layout, values));
            add_buffer(writer, write_texts(all, at, layout, writer->body + writer->at));
            break;
    }
}

size_t em_message_write(const struct ArrowArray *batches, size_t count, const em_layout *layouts,
                        size_t columns, uint8_t *out) {
    const batch_list all = {batches, count, rows_of(batches, count)};
    const size_t head = head_bytes(layouts, columns);
    uint8_t *nodes = out + PREFIX + 80;
    message_writer writer = {nodes + ENTRY * columns + 8, out + head, 0, 0};
    assert(((uintptr_t)out & (ROWS_BYTES - 1)) == 0);
    for (size_t at = 0; at < columns; at++) {
        write_column(&writer, all, at, layouts[at], nodes + ENTRY * at);
    }
    write_metadata(out, columns, writer.buffers, all.rows, writer.at);
    return head + writer.at;
}
