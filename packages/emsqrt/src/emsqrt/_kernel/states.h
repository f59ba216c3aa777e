/* The states of aggregates: in a table of groups, and packed as the payload of a row.
 *
 * A *part* is one state column of emsqrt.plan.states: a count, an exact sum, a float sum, a
 * minimum, and so on. A *record* holds the states of one group in memory:
 *
 *     u32 key_bytes    u8 flags[parts], padded to 8    states, 8-aligned    key, padded to 8
 *
 * A state of variable size (text, a sketch, a sum beyond 64 bits) is in the heap, which shares the
 * memory with the records, and the record holds a reference to it. A packed state has no more bytes
 * than it needs; a row's payload is the packed states of its parts in order.
 */
#ifndef EMSQRT_STATES_H
#define EMSQRT_STATES_H

#include "columns.h"
#include "float_sum.h"
#include "hll.h"

enum em_part_op {
    EM_COUNT_ROWS,
    EM_COUNT,         /* values that are not null */
    EM_COUNT_SUM,     /* of counts, I64 */
    EM_SUM,           /* exact, of integers and decimals */
    EM_FLOAT_SUM,     /* of numbers, rounded to doubles first */
    EM_FLOAT_SQUARES, /* of their squares */
    EM_FLOAT_MERGE,   /* of states of 80 bytes */
    EM_MIN,
    EM_MAX,
    EM_FIRST, /* the first value that is not null, in the order of the rows */
    EM_LAST,
    EM_HLL,
    EM_HLL_MERGE, /* of serialized sketches */
    EM_PART_OPS,
};

#define EM_NO_COLUMN UINT32_MAX /* the part reads no column; see fold.h */
#define EM_PARTS_MAX 65535u

/* The in-memory representation that a kind's values share. */
enum em_class { EM_CLASS_INT, EM_CLASS_UINT, EM_CLASS_FLOAT, EM_CLASS_WIDE, EM_CLASS_TEXT };

typedef struct {
    enum em_part_op op;
    uint32_t column;
    enum em_kind kind; /* of the argument */
    int32_t param;     /* a decimal's scale; a sketch's precision; first and last: 1 keeps nulls */
    uint32_t at;       /* offset of the state in a record */
} em_part;

typedef struct {
    uint32_t count;
    uint32_t fixed_bytes; /* of a record without its key */
    em_part *parts;
} em_layout;

enum { EM_SEEN = 1, EM_HEAPED = 2, EM_IS_NULL = 4 };

#define EM_RECORD_FLAGS 4u

/* A bump allocator; a reference counts units of eight bytes, and 0 is none. Each allocation begins
 * with EM_HEAP_MARK and its size, so that a walk over the memory can distinguish allocations from
 * records. */
typedef struct {
    uint8_t *memory;
    size_t used, limit;
    size_t text_bytes_max; /* the longest text ever stored */
    bool failed;
} em_heap;

#define EM_HEAP_MARK UINT32_MAX
#define EM_HEAP_HEAD 8u

static inline size_t em_align8(size_t bytes) {
    return (bytes + 7) & ~(size_t)7;
}

static inline uint8_t *em_heap_at(const em_heap *heap, uint32_t ref) {
    return heap->memory + (size_t)ref * 8;
}

/* Allocate `bytes` zeroed bytes; return a reference, or 0 with `failed` set. */
uint32_t em_heap_allocate(em_heap *heap, size_t bytes);

static inline enum em_class em_class_of(enum em_kind kind) {
    switch (kind) {
    case EM_U64:
        return EM_CLASS_UINT;
    case EM_F32:
    case EM_F64:
        return EM_CLASS_FLOAT;
    case EM_DECIMAL:
        return EM_CLASS_WIDE;
    case EM_TEXT:
    case EM_BYTES:
        return EM_CLASS_TEXT;
    default:
        return EM_CLASS_INT;
    }
}

static inline bool em_keeps_null(const em_part *part) {
    return (part->op == EM_FIRST || part->op == EM_LAST) && part->param == 1;
}

static inline uint8_t *em_flags(uint8_t *record, size_t part) {
    return record + EM_RECORD_FLAGS + part;
}

/* A text in the heap: `capacity` bytes after the allocation's head, of which `bytes` are used. */
typedef struct {
    uint32_t ref, bytes;
} em_text_ref;

/* Assign each part its offset in a record; false when an op does not support its kind or param. */
bool em_layout_place(em_layout *layout);

/* An upper bound of the heap bytes that one more value of the part can allocate, its text excluded.
 */
size_t em_part_growth(const em_part *part);

/* Each of these adds to a state of `record`, which is zeroed or in use. */
void em_sum_put(uint8_t *record, const em_part *part, size_t index, em_i128 value, em_heap *heap);
void em_float_put(uint8_t *record, const em_part *part, size_t index, double value, em_heap *heap);
void em_float_put_sum(uint8_t *record, const em_part *part, size_t index, const em_float_sum *sum,
                      em_heap *heap);
void em_float_put_bins(uint8_t *record, const em_part *part, size_t index,
                       const em_float_bins *more, em_heap *heap);
/* Replace the held value if this one is better, or store the first one. `value` has the
 * representation of its class; text is in `text`; `sequence` is the row's number, for first and
 * last. */
void em_value_put(uint8_t *record, const em_part *part, size_t index, uint64_t sequence,
                  const uint8_t *value, const uint8_t *text, size_t bytes, em_heap *heap);
/* As em_value_put() for a null, for parts with em_keeps_null(). */
void em_null_put(uint8_t *record, const em_part *part, size_t index, uint64_t sequence);
void em_text_put(uint8_t *state, const uint8_t *text, uint32_t bytes, em_heap *heap);
void em_hll_put(uint8_t *record, const em_part *part, size_t index, uint32_t entry, em_heap *heap);
bool em_hll_put_bytes(uint8_t *record, const em_part *part, size_t index, const uint8_t *bytes,
                      size_t size, em_heap *heap);
uint64_t em_value_hash(enum em_class class, const void *value, size_t bytes);

/* Compare doubles: NaN is greater than any other value, zeros are equal. */
static inline bool em_double_above(double left, double right) {
    return left > right || (left != left && right == right);
}

/* An upper bound of the bytes of the record's packed states. */
size_t em_pack_bound(const em_layout *layout, const uint8_t *record, const em_heap *heap);
uint8_t *em_pack(const em_layout *layout, uint8_t *record, const em_heap *heap, uint8_t *out);

/* Merge packed states into a record; NULL when they are damaged or the heap is full. */
const uint8_t *em_merge_packed(const em_layout *layout, uint8_t *record, em_heap *heap,
                               const uint8_t *in, const uint8_t *end);

/* An upper bound of the heap bytes that em_merge_packed() of `packed_bytes` can allocate. */
size_t em_merge_growth(const em_layout *layout, size_t packed_bytes);

static inline uint8_t *em_put_varint(uint8_t *out, uint64_t value) {
    for (; value >= 0x80; value >>= 7) {
        *out++ = (uint8_t)(value | 0x80);
    }
    *out++ = (uint8_t)value;
    return out;
}

static inline const uint8_t *em_get_varint(const uint8_t *in, const uint8_t *end, uint64_t *value) {
    *value = 0;
    for (unsigned shift = 0; in < end && shift < 64; shift += 7) {
        const uint8_t byte = *in++;
        *value |= (uint64_t)(byte & 0x7F) << shift;
        if (byte < 0x80) {
            return in;
        }
    }
    return NULL;
}

/* The first byte of a packed float sum. */
enum em_floats { EM_FLOATS_NONE, EM_FLOATS_ONE, EM_FLOATS_FEW, EM_FLOATS_WHOLE };

/* One packed state, decoded; finish.c makes columns from it. */
typedef struct {
    bool seen;
    bool null;           /* the stored value is null */
    uint64_t count;      /* counts; for first and last the row's number */
    em_sum sum;          /* exact sums */
    enum em_floats form; /* of a float sum, which is in one of the next three fields */
    double one;
    em_float_bins few;
    em_float_sum floats;
    uint8_t value[16];   /* fixed-width values, in the representation of their class */
    const uint8_t *text; /* text, and serialized sketches */
    size_t text_bytes;
} em_packed;

const uint8_t *em_packed_read_part(const em_part *part, const uint8_t *in, const uint8_t *end,
                                   em_packed *out);

/* A decoded float sum, in its full form, and as a double rounded once. */
em_float_sum em_packed_floats(const em_packed *packed);
double em_packed_float_value(const em_packed *packed);

#endif
