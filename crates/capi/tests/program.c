/* Uses every call of kvstore.h; prints what went wrong and exits with 1 when one does not do what it should. */
#include "kvstore.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define CHECK(what)                                                                                  \
    do {                                                                                             \
        if (!(what)) {                                                                               \
            fprintf(stderr, "line %d: %s is not so (last error: %s)\n", __LINE__, #what, kv_error()); \
            return 1;                                                                                \
        }                                                                                            \
    } while (0)

static int count(const void *key, size_t key_len, const void *value, size_t value_len, void *context) {
    (void)key, (void)key_len, (void)value, (void)value_len;
    return ++*(int *)context == 2; /* stops after the second */
}

int main(int argc, char **argv) {
    CHECK(argc == 3);
    kv_store *store = kv_create(argv[1]);
    CHECK(store != NULL);
    CHECK(kv_create(argv[1]) == NULL && strstr(kv_error(), "in use") != NULL);

    void *value = NULL;
    size_t value_len = 0;
    CHECK(kv_get(store, "a", 1, &value, &value_len) == KV_NOT_FOUND);
    CHECK(kv_put(store, "a", 1, "one", 3) == KV_OK);
    CHECK(kv_put(store, "b\0c", 3, "\0\1\2", 3) == KV_OK);
    CHECK(kv_put(store, "empty", 5, NULL, 0) == KV_OK);
    CHECK(kv_get(store, "b\0c", 3, &value, &value_len) == KV_OK);
    CHECK(value_len == 3 && memcmp(value, "\0\1\2", 4) == 0);
    kv_free(value);
    CHECK(kv_exists(store, "empty", 5) == KV_OK && kv_exists(store, "nothing", 7) == KV_NOT_FOUND);

    int visited = 0;
    CHECK(kv_foreach(store, count, &visited) == KV_OK && visited == 2);
    kv_statistics statistics;
    CHECK(kv_stats(store, &statistics) == KV_OK && statistics.keys == 3 && statistics.log_bytes > 0);

    CHECK(kv_save(store, argv[2]) == KV_OK);
    CHECK(kv_save(store, argv[2]) == KV_ERROR && strstr(kv_error(), "already") != NULL);
    CHECK(kv_delete(store, "a", 1) == KV_OK && kv_delete(store, "a", 1) == KV_NOT_FOUND);
    CHECK(kv_destroy(store) == KV_OK);

    store = kv_create(argv[1]);
    CHECK(store != NULL && kv_exists(store, "a", 1) == KV_NOT_FOUND && kv_exists(store, "b\0c", 3) == KV_OK);
    CHECK(kv_load(store, argv[2]) == KV_OK && kv_get(store, "a", 1, &value, &value_len) == KV_OK);
    CHECK(value_len == 3 && strcmp(value, "one") == 0);
    kv_free(value);
    CHECK(kv_put(NULL, "a", 1, "b", 1) == KV_ERROR && kv_put(store, NULL, 1, "b", 1) == KV_ERROR);
    CHECK(kv_destroy(store) == KV_OK && kv_destroy(NULL) == KV_OK);
    puts("every call does what the header says");
    return 0;
}
