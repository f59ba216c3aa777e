/* The CSV splitter against its exact scanner, the parser in little memory against much, and the
 * writers on what was parsed.
 *
 * Byte 0 chooses the dialect, byte 1 the policy and the fields, byte 2 how little memory there is.
 *
 * Needs csv_batch.c, csv_fault.c, csv_floats.c, csv_format.c, csv_index.c, csv_lines.c,
 * csv_parse.c, csv_split.c, csv_times.c, csv_types.c, numbers.c.
 */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "csv_parse.h"
#include "csv_write.h"
#include "numbers.h"

enum { FIELDS = 3, MUCH = 1 << 16 };

static const char *const types[][FIELDS] = {
    {"Utf8", "Int64", "Float64"},
    {"Decimal(12,2)", "Utf8", "Bool"},
    {"Timestamp(us,UTC)", "Date", "Time"},
    {"Binary", "Float32", "UInt8"},
};

static void split(const uint8_t *data, size_t size, em_dialect dialect) {
    size_t exact = 0;
    for (size_t end; (end = em_csv_next_end(data, exact, size, dialect)) > 0;) {
        if (end <= exact || end > size) {
            abort();
        }
        exact = end;
    }
    if (em_csv_last_end(data, size, dialect) != exact) {
        abort();
    }
}

typedef struct {
    em_csv_parser parser;
    em_building columns[FIELDS];
    em_column views[FIELDS];
    uint32_t fields[FIELDS], order[FIELDS];
    em_span spans[FIELDS];
    size_t text_bytes[FIELDS];
    em_type row[FIELDS];
    uint64_t rows, digest;
} reader;

static void write_out(reader *reader, const em_columns *columns, const uint8_t *data) {
    uint8_t *out = malloc(MUCH);
    size_t written;
    const size_t next = em_csv_format(reader->row, ',', columns, 0, NULL, out, MUCH, &written);
    for (size_t i = 0; next == columns->row_count && i < written; i++) {
        reader->digest = (reader->digest ^ out[i]) * UINT64_C(1099511628211);
    }
    const uint32_t chosen[] = {2, 0};
    em_span spans[FIELDS];
    const em_csv_writer writer = {.dialect = reader->parser.dialect,
                                  .fields = chosen,
                                  .delimiter = ',',
                                  .field_count = 2,
                                  .record_fields = FIELDS,
                                  .spans = spans};
    for (size_t row = 0; row < columns->row_count; row++) {
        const em_span line = columns->lines[row];
        const size_t room = line.size % 97;
        uint8_t *tight = malloc(room + 1);
        em_csv_write_line(&writer, data + line.start, line.size, tight, room, &written);
        free(tight);
    }
    free(out);
}

/* Parse everything with so much memory; false when a record cannot be read or has no room. */
static bool read_all(reader *reader, const uint8_t *data, size_t size, em_dialect dialect,
                     uint8_t mode, size_t memory_bytes) {
    memset(reader, 0, sizeof *reader);
    uint8_t *memory = malloc(memory_bytes);
    em_csv_parser *parser = &reader->parser;
    parser->dialect = dialect;
    parser->field_count = FIELDS;
    parser->check_fields = (mode & 1) == 0;
    parser->empty_is_null = true;
    parser->reading.policy = (enum em_policy)(mode >> 1 & 3) % 3;
    parser->batch = (em_batch){.memory = memory,
                               .memory_bytes = memory_bytes,
                               .column_count = FIELDS,
                               .columns = reader->columns,
                               .views = reader->views};
    parser->fields = reader->fields;
    parser->order = reader->order;
    parser->spans = reader->spans;
    parser->text_bytes = reader->text_bytes;
    for (uint32_t i = 0; i < FIELDS; i++) {
        em_parse_type(types[mode >> 3 & 3][i], &reader->row[i]);
        reader->columns[i].type = reader->row[i];
        reader->fields[i] = reader->order[i] = i;
    }
    size_t start = 0;
    while (start < size && parser->reading.fault.reason == EM_SOUND) {
        const size_t next = em_csv_parse(parser, data, start, size);
        if (next < start || next > size ||
            (next == start && parser->reading.fault.reason == EM_SOUND)) {
            abort();
        }
        const em_columns columns = em_batch_view(&parser->batch, data);
        reader->rows += columns.row_count;
        write_out(reader, &columns, data);
        start = next;
    }
    free(memory);
    return parser->reading.fault.reason == EM_SOUND;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes) {
    static const em_dialect dialects[] = {{',', '"'}, {';', '\''}, {'\t', -1}, {'|', '"'}};
    if (bytes < 3 || !em_numbers_open()) {
        return 0;
    }
    const em_dialect dialect = dialects[data[0] & 3];
    const size_t size = bytes - 3;
    uint8_t *copy = malloc(size > 0 ? size : 1);
    memcpy(copy, data + 3, size);
    split(copy, size, dialect);
    static reader much, little;
    const bool sound = read_all(&much, copy, size, dialect, data[1], MUCH);
    if (read_all(&little, copy, size, dialect, data[1], 32 + 8 * (size_t)data[2]) && sound &&
        size < MUCH / 4 && (much.rows != little.rows || much.digest != little.digest)) {
        abort();
    }
    free(copy);
    return 0;
}
