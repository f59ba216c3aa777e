/* The reader of JSON Lines: any bytes, then what was read is written and read once more.
 *
 * Byte 0 chooses the policy, byte 1 how little memory there is.
 *
 * Needs csv_batch.c, csv_fault.c, csv_floats.c, csv_format.c, csv_times.c, csv_types.c, jsonl.c,
 * jsonl_format.c, jsonl_parse.c, numbers.c.
 */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "jsonl.h"
#include "numbers.h"

enum { COLUMNS = 4, MUCH = 1 << 16 };

static const char *const types[COLUMNS] = {"Utf8", "Int64", "Float64", "Binary"};
static const char *const keys[COLUMNS] = {"t", "n", "x", "b"};
static const char *const labels[COLUMNS] = {"\"t\":", "\"n\":", "\"x\":", "\"b\":"};

typedef struct {
    em_jsonl_parser parser;
    em_building columns[COLUMNS];
    em_column views[COLUMNS];
    em_name names[COLUMNS], labels[COLUMNS];
    em_span spans[COLUMNS];
    size_t text_bytes[COLUMNS];
    em_type row[COLUMNS];
} reader;

static void open_reader(reader *reader, uint8_t policy, uint8_t *memory, size_t memory_bytes) {
    memset(reader, 0, sizeof *reader);
    em_jsonl_parser *parser = &reader->parser;
    parser->reading.policy = (enum em_policy)(policy % 3);
    parser->batch = (em_batch){.memory = memory,
                               .memory_bytes = memory_bytes,
                               .column_count = COLUMNS,
                               .columns = reader->columns,
                               .views = reader->views};
    parser->names = reader->names;
    parser->spans = reader->spans;
    parser->text_bytes = reader->text_bytes;
    for (size_t i = 0; i < COLUMNS; i++) {
        em_parse_type(types[i], &reader->row[i]);
        reader->columns[i].type = reader->row[i];
        reader->names[i] = (em_name){(const uint8_t *)keys[i], strlen(keys[i])};
        reader->labels[i] = (em_name){(const uint8_t *)labels[i], strlen(labels[i])};
    }
}

/* Read text that the formatter wrote: every row comes back. */
static void read_again(const uint8_t *text, size_t size, size_t rows) {
    static reader second;
    uint8_t *memory = malloc(2 * MUCH);
    size_t found = 0;
    open_reader(&second, EM_FAIL, memory, 2 * MUCH);
    for (size_t start = 0; start < size;) {
        start = em_jsonl_parse(&second.parser, text, start, size);
        found += second.parser.batch.row_count;
        if (second.parser.reading.fault.reason != EM_SOUND) {
            abort();
        }
    }
    if (found != rows) {
        abort();
    }
    free(memory);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes) {
    static reader first;
    if (bytes < 2 || bytes > MUCH / 8 || !em_numbers_open()) {
        return 0;
    }
    const size_t size = bytes - 2, room = 64 + 64 * (size_t)data[1];
    uint8_t *copy = malloc(size > 0 ? size : 1), *memory = malloc(room), *out = malloc(MUCH);
    memcpy(copy, data + 2, size);
    open_reader(&first, data[0], memory, room);
    for (size_t start = 0; start < size;) {
        const size_t next = em_jsonl_parse(&first.parser, copy, start, size);
        if (first.parser.reading.fault.reason != EM_SOUND) {
            break;
        }
        if (next <= start || next > size) {
            abort();
        }
        start = next;
        const em_columns columns = em_batch_view(&first.parser.batch, copy);
        size_t written;
        const size_t done =
            em_jsonl_format(first.row, first.labels, &columns, 0, NULL, out, MUCH, &written);
        read_again(out, written, done);
    }
    free(copy);
    free(memory);
    free(out);
    return 0;
}
