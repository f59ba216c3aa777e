/* The field types of a record: the one table of them.
 *
 * C expands FIELD_TYPES below, Python reads the same rows as `_native.FIELD_TYPES`, and
 * `python tools/strand_types.py` writes what else names every type: the getters in _native.pyi,
 * js/src/types.ts, the table in spec/strand-wire.md and the lists in the READMEs. So a new type of
 * a known kind is one row here, that command, and tests.
 *
 *     name     its name in a schema
 *     tag      its number on the wire, which never changes; the rows are in the order of the tags,
 *              which count from 0 without a gap, because a tag indexes `field_types`
 *     kind     how a value is checked, stored and read: enum field_kind
 *     element  the C type of a number in the slot, or of the items of a payload
 *     getter   the cursor reads it by get_<getter>
 */
#ifndef STRAND_TYPES_H
#define STRAND_TYPES_H

#include <stdbool.h>
#include <stdint.h>

/* clang-format off */
#define FIELD_TYPES(ROW)                                   \
    /*  name      tag  kind     element   getter */        \
    ROW(i32,       0,  INTEGER, int32_t,  i32)             \
    ROW(u32,       1,  INTEGER, uint32_t, u32)             \
    ROW(i64,       2,  INTEGER, int64_t,  i64)             \
    ROW(f32,       3,  FLOAT,   float,    f32)             \
    ROW(f64,       4,  FLOAT,   double,   f64)             \
    ROW(u16,       5,  INTEGER, uint16_t, u16)             \
    ROW(u8,        6,  INTEGER, uint8_t,  u8)              \
    ROW(bool8,     7,  BOOLEAN, uint8_t,  bool)            \
    ROW(utf8,      8,  TEXT,    uint8_t,  string)          \
    ROW(utf8_ref,  9,  HANDLE,  uint32_t, ref)             \
    ROW(json,      10, JSON,    uint8_t,  json)            \
    ROW(bytes,     11, BYTES,   uint8_t,  bytes)           \
    ROW(i32_array, 12, ARRAY,   int32_t,  i32_array)       \
    ROW(f32_array, 13, ARRAY,   float,    f32_array)
/* clang-format on */

/* What a type's values are. The heap kinds come last: see `is_heap`. */
enum field_kind {
    KIND_INTEGER, /* in the slot; signed, or unsigned with at most 32 bits */
    KIND_FLOAT,   /* in the slot */
    KIND_BOOLEAN, /* in the slot: a byte, any nonzero value is true */
    KIND_HANDLE,  /* in the slot: a position in the intern table */
    KIND_TEXT,    /* in the heap: UTF-8 */
    KIND_JSON,    /* in the heap: UTF-8 that is JSON */
    KIND_BYTES,   /* in the heap: any bytes */
    KIND_ARRAY,   /* in the heap: numbers of the element's type */
};

static inline bool is_heap(unsigned kind) {
    return kind >= KIND_TEXT;
}

static inline bool is_text(unsigned kind) {
    return kind == KIND_TEXT || kind == KIND_JSON;
}

/* A row of the table, for code that is not expanded for each type. */
typedef struct {
    const char *formats; /* buffer-protocol codes of the element; the first is that of `struct` */
    int64_t least;       /* the range of an integer element, 0 for floats */
    int64_t most;
    bool floating;
    uint8_t kind;
    uint8_t item_bytes; /* of one element */
} field_type;

#define ONE_FIELD_TYPE(name, tag, kind, element, getter) +1
enum { FIELD_TYPE_COUNT = 0 FIELD_TYPES(ONE_FIELD_TYPE) };
#undef ONE_FIELD_TYPE

/* A row at another place than its tag says does not compile. */
#define ROW_OF(name, tag, kind, element, getter) ROW_OF_##name,
enum { FIELD_TYPES(ROW_OF) };
#undef ROW_OF
#define IN_TAG_ORDER(name, tag, kind, element, getter)                                             \
    _Static_assert(ROW_OF_##name == (tag), "the rows are in the order of the tags");
FIELD_TYPES(IN_TAG_ORDER)
#undef IN_TAG_ORDER

/* By tag; defined in _layout.c. */
extern const field_type field_types[FIELD_TYPE_COUNT];

/* The codes that the buffer protocol has for an element. `l` is of 4 or 8 bytes, depending on the
 * platform, so whoever reads a buffer compares its item size as well. */
#define FORMATS_OF(element)                                                                        \
    _Generic((element)0,                                                                           \
        int8_t: "b",                                                                               \
        uint8_t: "B",                                                                              \
        int16_t: "h",                                                                              \
        uint16_t: "H",                                                                             \
        int32_t: "ilq",                                                                            \
        uint32_t: "ILQ",                                                                           \
        int64_t: "qli",                                                                            \
        float: "f",                                                                                \
        double: "d")

#define IS_FLOATING(element) _Generic((element)0, float: true, double: true, default: false)

#define LEAST_OF(element)                                                                          \
    _Generic((element)0,                                                                           \
        int8_t: INT8_MIN,                                                                          \
        int16_t: INT16_MIN,                                                                        \
        int32_t: INT32_MIN,                                                                        \
        int64_t: INT64_MIN,                                                                        \
        default: 0)

#define MOST_OF(element)                                                                           \
    _Generic((element)0,                                                                           \
        int8_t: INT8_MAX,                                                                          \
        uint8_t: UINT8_MAX,                                                                        \
        int16_t: INT16_MAX,                                                                        \
        uint16_t: UINT16_MAX,                                                                      \
        int32_t: INT32_MAX,                                                                        \
        uint32_t: UINT32_MAX,                                                                      \
        int64_t: INT64_MAX,                                                                        \
        default: 0)

#endif
