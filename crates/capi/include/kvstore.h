/* kvstore.h - the C library of Bowline: a key-value store that keeps every acknowledged write.
 *
 * Keys and values are any bytes, given with their length. All functions may be called from several threads at once,
 * except kv_destroy, which must be the last call on a store. Functions that return int return
 *
 *   KV_OK (0)          done; for writes: safe on disk
 *   KV_NOT_FOUND (1)   there is no such key
 *   KV_ERROR (-1)      refused or failed: kv_error() says why, in words
 *
 * Link with -lkvstore (and -lpthread -ldl -lm for the static library).
 */
#ifndef KVSTORE_H
#define KVSTORE_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#define KV_OK 0
#define KV_NOT_FOUND 1
#define KV_ERROR (-1)

/* An open store. */
typedef struct kv_store kv_store;

/* Figures about a store. */
typedef struct kv_statistics {
    uint64_t keys;        /* keys in the store */
    uint64_t entry_bytes; /* memory of all entries, bytes */
    uint64_t table_bytes; /* memory of the tables that find them, bytes */
    uint64_t log_bytes;   /* length of the log on disk, bytes */
} kv_statistics;

/* Called by kv_foreach for each entry; the pointers are valid during the call. Return 0 to go on, anything else to stop.
 * It may call the store. */
typedef int (*kv_visit)(const void *key, size_t key_len, const void *value, size_t value_len, void *context);

/* Opens the store in a directory, which is made if need be. NULL when that failed. One process at a time. */
kv_store *kv_create(const char *directory);

/* Makes everything durable, closes the store and frees it. NULL is fine. KV_ERROR: the last writes may not be durable. */
int kv_destroy(kv_store *store);

/* Writes a value. Returns when it is safe on disk. */
int kv_put(kv_store *store, const void *key, size_t key_len, const void *value, size_t value_len);

/* Gives a copy of a value, to be freed with kv_free. It is followed by a zero byte that does not count. */
int kv_get(kv_store *store, const void *key, size_t key_len, void **value, size_t *value_len);

/* Removes a key. */
int kv_delete(kv_store *store, const void *key, size_t key_len);

/* KV_OK when the key exists. */
int kv_exists(kv_store *store, const void *key, size_t key_len);

/* Copies the store into a new one in another directory, which must not hold a store yet. */
int kv_save(kv_store *store, const char *directory);

/* Puts every entry of the store in another directory into this one. */
int kv_load(kv_store *store, const char *directory);

/* Visits every entry, in no order. Entries that are written meanwhile are visited or not. */
int kv_foreach(kv_store *store, kv_visit visit, void *context);

/* Fills in figures. */
int kv_stats(kv_store *store, kv_statistics *statistics);

/* Frees what kv_get gave. NULL is fine. */
void kv_free(void *value);

/* What the last failed call of this thread said; "" when none failed. Valid until the thread's next failed call. */
const char *kv_error(void);

#ifdef __cplusplus
}
#endif

#endif /* KVSTORE_H */
