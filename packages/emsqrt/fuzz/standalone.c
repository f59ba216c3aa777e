/* Runs a target without libFuzzer: over the files named, or over what AFL++ puts on stdin. */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes);

enum { INPUT_BYTES_MAX = 1 << 20 };

static void run(FILE *file) {
    uint8_t *data = malloc(INPUT_BYTES_MAX);
    const size_t bytes = fread(data, 1, INPUT_BYTES_MAX, file);
    uint8_t *exact = realloc(data, bytes ? bytes : 1);
    LLVMFuzzerTestOneInput(exact, bytes);
    free(exact);
}

int main(int count, char **names) {
#ifdef __AFL_LOOP
    while (count == 1 && __AFL_LOOP(10000)) {
        run(stdin);
    }
#else
    if (count == 1) {
        run(stdin);
    }
#endif
    for (int i = 1; i < count; i++) {
        FILE *file = fopen(names[i], "rb");
        if (file == NULL) {
            perror(names[i]);
            return 2;
        }
        run(file);
        fclose(file);
    }
    return 0;
}
