/* RowIterator: typed records as tuples, one at a time.
 *
 * A list of tuples holds all of them in memory at once. Here each record is read when the loop
 * requests it, into a tuple that the loop no longer refers to, as `zip` does. So a loop touches the
 * ring and a few objects that stay in the first-level cache.
 */
#include "_values.h"

/* From Python 3.14 on a tuple caches its hash, and extensions cannot reset it: no tuple is reused.
 */
static const unsigned long TUPLES_KEEP_HASHES = 0x030E0000;

enum { AHEAD_RECORDS = 32 };
enum { SPARE_TUPLES = 2 }; /* the loop still refers to the last tuple when it requests the next */

typedef struct {
    PyObject ob_base;
    consumer_object *view;
    uint64_t seq;
    uint64_t stop;
    PyObject *spare[SPARE_TUPLES];
    bool acyclic; /* no value can refer to a tuple: it need not be tracked by the collector */
    bool reuses;
} row_iterator;

PyObject *consumer_rows(consumer_object *self, PyObject *const *args, Py_ssize_t count) {
    uint64_t start, stop;
    if (count != 2) {
        PyErr_Format(PyExc_TypeError, "rows() needs start and stop, not %zd arguments", count);
        return NULL;
    }
    if (to_u64(args[0], &start) < 0 || to_u64(args[1], &stop) < 0 ||
        !is_readable(self, start, stop))
        return NULL;
    row_iterator *rows = (row_iterator *)allocate((PyTypeObject *)self->state->row_iterator_type);
    if (rows == NULL)
        return NULL;
    rows->view = (consumer_object *)Py_NewRef((PyObject *)self);
    rows->seq = start;
    rows->stop = stop;
    rows->acyclic = is_acyclic(self->layout);
    rows->reuses = rows->acyclic && Py_Version < TUPLES_KEEP_HASHES;
    return (PyObject *)rows;
}

/* Return a spare tuple that only this iterator refers to, or a new one (a borrowed reference). */
static PyObject *get_tuple(row_iterator *rows, Py_ssize_t fields) {
    PyObject **spare = &rows->spare[rows->seq % SPARE_TUPLES];
    if (rows->reuses && *spare != NULL && Py_REFCNT(*spare) == 1)
        return *spare;
    PyObject *record = PyTuple_New(fields);
    if (record == NULL)
        return NULL;
    if (rows->acyclic)
        PyObject_GC_UnTrack(record);
    Py_XDECREF(*spare);
    *spare = record;
    return record;
}

static PyObject *fill(row_iterator *rows) {
    consumer_object *view = rows->view;
    const Py_ssize_t fields = (Py_ssize_t)view->layout->count;
    const unsigned char *slot = view->core.ring.base + strand_slot_at(&view->core.ring, rows->seq);
    /* start loading a later slot from the producer's cache while this one is decoded */
    __builtin_prefetch(view->core.ring.base +
                       strand_slot_at(&view->core.ring, rows->seq + AHEAD_RECORDS));
    PyObject *record = get_tuple(rows, fields);
    if (record == NULL)
        return NULL;
    view->reading = rows->seq;
    for (Py_ssize_t at = 0; at < fields; at++) {
        PyObject *value = read_value(view, slot, (uint32_t)at);
        if (value == NULL)
            return NULL;
        PyTuple_SetItem(record, at, value);
    }
    return Py_NewRef(record);
}

static PyObject *rows_next(row_iterator *rows) {
    consumer_object *view = rows->view;
    if (rows->seq >= rows->stop || consumer_closed(view))
        return NULL;
    if (!strand_readable(&view->core, rows->seq))
        return fail_number(view, FAIL_NO_RECORD, rows->seq);
    view->busy++;
    PyObject *record = fill(rows);
    rows->seq += record != NULL;
    return consumer_done(view, record);
}

static void rows_dealloc(row_iterator *rows) {
    for (unsigned i = 0; i < SPARE_TUPLES; i++)
        Py_XDECREF(rows->spare[i]);
    Py_XDECREF((PyObject *)rows->view);
    free_object((PyObject *)rows);
}

static PyType_Slot rows_slots[] = {
    {Py_tp_doc, "Iterates over typed records as tuples; made by StrandView.rows."},
    {Py_tp_dealloc, rows_dealloc},
    {Py_tp_iter, PyObject_SelfIter},
    {Py_tp_iternext, rows_next},
    {0, NULL},
};

PyType_Spec row_iterator_spec = {
    .name = "strand._native.RowIterator",
    .basicsize = sizeof(row_iterator),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_DISALLOW_INSTANTIATION,
    .slots = rows_slots,
};
