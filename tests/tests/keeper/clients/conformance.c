/* What the C client needs of a server: run as `conformance HOST:PORT`. Ends with "all passed" and status 0. */

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>
#include <zookeeper/zookeeper.h>

#define CHECK(condition)                                                                                               \
    do {                                                                                                               \
        if (!(condition)) {                                                                                            \
            fprintf(stderr, "%s:%d: not true: %s\n", __FILE__, __LINE__, #condition);                                  \
            exit(1);                                                                                                   \
        }                                                                                                              \
    } while (0)
#define IS(code, call)                                                                                                 \
    do {                                                                                                               \
        int is = (call), should = (code);                                                                              \
        if (is != should) {                                                                                            \
            fprintf(stderr, "%s:%d: %s is %s, not %s\n", __FILE__, __LINE__, #call, zerror(is), zerror(should));       \
            exit(1);                                                                                                   \
        }                                                                                                              \
    } while (0)

/* What watchers have seen; each kind of event is counted. */
static pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t changed = PTHREAD_COND_INITIALIZER;
static int connections, created, deleted, data_changed, children_changed, expired;

static void watcher(zhandle_t *zh, int type, int state, const char *path, void *context) {
    (void)zh, (void)path, (void)context;
    pthread_mutex_lock(&mutex);
    if (type == ZOO_SESSION_EVENT) {
        connections += state == ZOO_CONNECTED_STATE;
        expired += state == ZOO_EXPIRED_SESSION_STATE;
    }
    created += type == ZOO_CREATED_EVENT;
    deleted += type == ZOO_DELETED_EVENT;
    data_changed += type == ZOO_CHANGED_EVENT;
    children_changed += type == ZOO_CHILD_EVENT;
    pthread_cond_broadcast(&changed);
    pthread_mutex_unlock(&mutex);
}

static void wait_for(const char *what, const int *count, int value) {
    struct timespec deadline;
    clock_gettime(CLOCK_REALTIME, &deadline);
    deadline.tv_sec += 30;
    pthread_mutex_lock(&mutex);
    while (*count < value) {
        if (pthread_cond_timedwait(&changed, &mutex, &deadline) != 0) {
            fprintf(stderr, "in vain for 30 s: %s\n", what);
            exit(1);
        }
    }
    pthread_mutex_unlock(&mutex);
}

static zhandle_t *start(const char *hosts, const clientid_t *session) {
    int before = connections;
    zhandle_t *zh = zookeeper_init(hosts, watcher, 10000, session, NULL, 0);
    CHECK(zh != NULL);
    wait_for("a session", &connections, before + 1);
    return zh;
}

static void data_and_stats(zhandle_t *zh) {
    char path[64], data[64];
    int length = sizeof data;
    struct Stat stat, later;
    struct String_vector children;

    IS(ZOK, zoo_create2(zh, "/c", "one", 3, &ZOO_OPEN_ACL_UNSAFE, ZOO_PERSISTENT, path, sizeof path, &stat));
    CHECK(strcmp(path, "/c") == 0 && stat.version == 0 && stat.dataLength == 3 && stat.czxid == stat.mzxid);
    IS(ZNODEEXISTS, zoo_create(zh, "/c", "", 0, &ZOO_OPEN_ACL_UNSAFE, ZOO_PERSISTENT, NULL, 0));
    IS(ZOK, zoo_set2(zh, "/c", "two!", 4, 0, &later));
    CHECK(later.version == 1 && later.mzxid > stat.mzxid && later.czxid == stat.czxid);
    IS(ZBADVERSION, zoo_set(zh, "/c", "x", 1, 0));
    IS(ZOK, zoo_get(zh, "/c", 0, data, &length, &stat));
    CHECK(length == 4 && memcmp(data, "two!", 4) == 0 && memcmp(&stat, &later, sizeof stat) == 0);
    IS(ZOK, zoo_create(zh, "/c/null", NULL, -1, &ZOO_OPEN_ACL_UNSAFE, ZOO_EPHEMERAL, NULL, 0));
    length = sizeof data;
    IS(ZOK, zoo_get(zh, "/c/null", 0, data, &length, &stat));
    CHECK(length == -1 && stat.ephemeralOwner == zoo_client_id(zh)->client_id);
    IS(ZNOCHILDRENFOREPHEMERALS,
       zoo_create(zh, "/c/null/x", "", 0, &ZOO_OPEN_ACL_UNSAFE, ZOO_PERSISTENT, NULL, 0));
    IS(ZOK, zoo_create(zh, "/c/s-", "", 0, &ZOO_OPEN_ACL_UNSAFE, ZOO_PERSISTENT_SEQUENTIAL, path, sizeof path));
    CHECK(strcmp(path, "/c/s-0000000001") == 0);
    IS(ZOK, zoo_create2(zh, "/c/box", "", 0, &ZOO_OPEN_ACL_UNSAFE, ZOO_CONTAINER, path, sizeof path, &stat));
    CHECK(stat.ephemeralOwner == 0 && stat.czxid > later.mzxid);
    IS(ZOK, zoo_create2_ttl(zh, "/c/ttl", "", 0, &ZOO_OPEN_ACL_UNSAFE, ZOO_PERSISTENT_WITH_TTL, 3600000, path,
                            sizeof path, &stat));
    IS(ZOK, zoo_get_children2(zh, "/c", 0, &children, &stat));
    CHECK(children.count == 4 && stat.numChildren == 4 && stat.cversion == 4);
    deallocate_String_vector(&children);
    IS(ZNOTEMPTY, zoo_delete(zh, "/c", -1));
    IS(ZNONODE, zoo_exists(zh, "/nothing", 0, &stat));
    IS(ZBADARGUMENTS, zoo_create(zh, "/c//x", "", 0, &ZOO_OPEN_ACL_UNSAFE, ZOO_PERSISTENT, NULL, 0));
}

static void transactions(zhandle_t *zh) {
    char path[64];
    struct Stat stat;
    zoo_op_t ops[4];
    zoo_op_result_t results[4];

    zoo_create_op_init(&ops[0], "/c/multi", "1", 1, &ZOO_OPEN_ACL_UNSAFE, ZOO_PERSISTENT, path, sizeof path);
    zoo_set_op_init(&ops[1], "/c/multi", "22", 2, 0, &stat);
    zoo_check_op_init(&ops[2], "/c/multi", 1);
    zoo_delete_op_init(&ops[3], "/c/s-0000000001", -1);
    IS(ZOK, zoo_multi(zh, 4, ops, results));
    for (int i = 0; i < 4; i++) IS(ZOK, results[i].err);
    CHECK(strcmp(path, "/c/multi") == 0 && stat.version == 1 && stat.dataLength == 2);

    zoo_set_op_init(&ops[0], "/c/multi", "333", 3, 1, &stat);
    zoo_delete_op_init(&ops[1], "/c/none", -1);
    zoo_check_op_init(&ops[2], "/c/multi", 2);
    IS(ZNONODE, zoo_multi(zh, 3, ops, results));
    IS(ZOK, results[0].err);
    IS(ZNONODE, results[1].err);
    IS(ZRUNTIMEINCONSISTENCY, results[2].err);
    IS(ZOK, zoo_exists(zh, "/c/multi", 0, &stat));
    CHECK(stat.version == 1);
}

static void watches(zhandle_t *zh, zhandle_t *other) {
    char data[64];
    int length = sizeof data;
    struct Stat stat;
    struct String_vector children;

    IS(ZNONODE, zoo_wexists(zh, "/c/w", watcher, NULL, &stat));
    IS(ZOK, zoo_create(other, "/c/w", "", 0, &ZOO_OPEN_ACL_UNSAFE, ZOO_PERSISTENT, NULL, 0));
    wait_for("the creation", &created, 1);
    IS(ZOK, zoo_wget(zh, "/c/w", watcher, NULL, data, &length, &stat));
    IS(ZOK, zoo_set(other, "/c/w", "1", 1, -1));
    wait_for("the change", &data_changed, 1);
    IS(ZOK, zoo_wget_children(zh, "/c/w", watcher, NULL, &children));
    deallocate_String_vector(&children);
    IS(ZOK, zoo_create(other, "/c/w/x", "", 0, &ZOO_OPEN_ACL_UNSAFE, ZOO_PERSISTENT, NULL, 0));
    wait_for("the child", &children_changed, 1);
    IS(ZOK, zoo_wexists(zh, "/c/w/x", watcher, NULL, &stat));
    IS(ZOK, zoo_remove_watches(zh, "/c/w/x", ZWATCHTYPE_DATA, watcher, NULL, 0));
    IS(ZNOWATCHER, zoo_remove_watches(zh, "/c/w/x", ZWATCHTYPE_DATA, watcher, NULL, 0));
    IS(ZOK, zoo_wexists(zh, "/c/w", watcher, NULL, &stat));
    IS(ZOK, zoo_delete(other, "/c/w/x", -1));
    IS(ZOK, zoo_delete(other, "/c/w", -1));
    wait_for("the deletion", &deleted, 1);
    CHECK(deleted == 1 && created == 1 && data_changed == 1 && children_changed == 1);
}

struct answer {
    pthread_mutex_t mutex;
    pthread_cond_t done;
    int code, given;
};

static void answered(int code, const void *context) {
    struct answer *answer = (struct answer *)context;
    pthread_mutex_lock(&answer->mutex);
    answer->code = code;
    answer->given = 1;
    pthread_cond_signal(&answer->done);
    pthread_mutex_unlock(&answer->mutex);
}

static void permissions(zhandle_t *zh, zhandle_t *other) {
    struct answer answer = {PTHREAD_MUTEX_INITIALIZER, PTHREAD_COND_INITIALIZER, 0, 0};
    struct ACL_vector acl;
    struct Stat stat;
    char data[8];
    int length = sizeof data;

    IS(ZOK, zoo_add_auth(zh, "digest", "ann:one", 7, answered, &answer));
    pthread_mutex_lock(&answer.mutex);
    while (!answer.given) pthread_cond_wait(&answer.done, &answer.mutex);
    pthread_mutex_unlock(&answer.mutex);
    IS(ZOK, answer.code);
    IS(ZOK, zoo_create(zh, "/c/mine", "m", 1, &ZOO_CREATOR_ALL_ACL, ZOO_PERSISTENT, NULL, 0));
    IS(ZOK, zoo_get(zh, "/c/mine", 0, data, &length, &stat));
    IS(ZNOAUTH, zoo_get(other, "/c/mine", 0, data, &length, &stat));
    IS(ZOK, zoo_get_acl(zh, "/c/mine", &acl, &stat));
    CHECK(acl.count == 1 && acl.data[0].perms == ZOO_PERM_ALL && strcmp(acl.data[0].id.scheme, "digest") == 0);
    CHECK(strcmp(acl.data[0].id.id, "ann:grDcJ7OS1jCu/cG2TyJHw/I9L8o=") == 0);
    deallocate_ACL_vector(&acl);
    IS(ZOK, zoo_set_acl(zh, "/c/mine", 0, &ZOO_READ_ACL_UNSAFE));
    IS(ZOK, zoo_get(other, "/c/mine", 0, data, &length, &stat));
    CHECK(stat.aversion == 1);
    IS(ZINVALIDACL, zoo_create(other, "/c/x", "", 0, &ZOO_CREATOR_ALL_ACL, ZOO_PERSISTENT, NULL, 0));
}

/* Who dies without a word leaves a session that another can go on with: this returns one, with a znode "/left". */
static clientid_t left_behind(const char *hosts) {
    clientid_t session;
    int ends[2], status;
    CHECK(pipe(ends) == 0);
    pid_t child = fork();
    CHECK(child >= 0);
    if (child == 0) {
        zhandle_t *zh = start(hosts, NULL);
        IS(ZOK, zoo_create(zh, "/left", "", 0, &ZOO_OPEN_ACL_UNSAFE, ZOO_EPHEMERAL, NULL, 0));
        CHECK(write(ends[1], zoo_client_id(zh), sizeof session) == sizeof session);
        _exit(0);
    }
    CHECK(read(ends[0], &session, sizeof session) == sizeof session);
    CHECK(waitpid(child, &status, 0) == child && status == 0);
    return session;
}

static void sessions(const char *hosts, zhandle_t *other, clientid_t session) {
    struct Stat stat;
    clientid_t forged = session;

    forged.passwd[0] ^= 1;
    zhandle_t *refused = zookeeper_init(hosts, watcher, 10000, &forged, NULL, 0);
    CHECK(refused != NULL);
    wait_for("the refusal", &expired, 1);
    zookeeper_close(refused);

    zhandle_t *again = start(hosts, &session);
    CHECK(zoo_client_id(again)->client_id == session.client_id);
    IS(ZOK, zoo_exists(other, "/left", 0, &stat));
    CHECK(stat.ephemeralOwner == session.client_id);
    IS(ZOK, zookeeper_close(again));
    IS(ZNONODE, zoo_exists(other, "/left", 0, &stat));
}

int main(int count, char **arguments) {
    CHECK(count == 2);
    zoo_set_debug_level(ZOO_LOG_LEVEL_ERROR);
    clientid_t session = left_behind(arguments[1]);
    zhandle_t *zh = start(arguments[1], NULL), *other = start(arguments[1], NULL);
    CHECK(zoo_client_id(zh)->client_id != zoo_client_id(other)->client_id);
    CHECK(zoo_recv_timeout(zh) == 10000 && zoo_state(zh) == ZOO_CONNECTED_STATE);
    data_and_stats(zh);
    transactions(zh);
    watches(zh, other);
    permissions(zh, other);
    sessions(arguments[1], other, session);
    IS(ZOK, zookeeper_close(zh));
    IS(ZOK, zookeeper_close(other));
    puts("all passed");
    return 0;
}
