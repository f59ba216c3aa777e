/* Joins batches of Arrow's C interface into one message of an IPC stream.
 *
 * A producer that makes small batches needs little memory when a row is wide; a consumer wants
 * large messages. The buffers of the batches are copied once, to their places in the message:
 *
 *     prefix │ metadata (flatbuffer) │ validity │ values │ … each padded to 8 bytes
 *
 * Formats: Arrow columnar 1.5, "Encapsulated message format" and Message.fbs. */
#ifndef EMSQRT_ARROW_JOIN_H
#define EMSQRT_ARROW_JOIN_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "arrow_stream.h"

/* How a column's values are stored. */
enum em_form { EM_FORM_FIXED, EM_FORM_BITS, EM_FORM_TEXT, EM_FORM_LARGE_TEXT };

typedef struct {
    enum em_form form;
    uint32_t width; /* bytes of a value of EM_FORM_FIXED; otherwise 0 */
} em_layout;

/* Return whether a batch has the buffers that the layouts say; the contents are not read. */
bool em_batch_fits(const struct ArrowArray *batch, const em_layout *layouts, size_t columns);

/* Return the bytes of the message that joins `count` batches, or a little more: columns that turn
 * out to have no NULL need no validity. */
size_t em_message_bound(const struct ArrowArray *batches, size_t count, const em_layout *layouts,
                        size_t columns);

/* Write the message of `count` batches to `out`, which has em_message_bound() bytes and is aligned
 * to 8; return its size. The slots under NULL are zero, whatever the batches have there. */
size_t em_message_write(const struct ArrowArray *batches, size_t count, const em_layout *layouts,
                        size_t columns, uint8_t *out);

#endif
