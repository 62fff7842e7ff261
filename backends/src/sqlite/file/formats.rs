//! The tables of the file, and how a file of an older program comes to have them.
//!
//! ```text
//! namespace    (id, state)                                          0 live, 1 dropped, 2 dropped and swept
//! item         (namespace, id, key) -> version, expires_at, kind, value, rest, bytes, digest
//! chunk        (place) -> data                                      place = value number * 16 + chunk number
//! orphan       (place)                                              chunks without an item, to be deleted; since format 6
//! range_delete (number) -> namespace, id, start, end, version, forget_at
//! removal      (number) -> namespace, id, start, end, version       deleted, rows still there; since format 6
//! relocation   (1) -> namespace, id, key, items, bytes              values still to be moved; since format 6
//! swap         (slot) -> sequence, namespace, version, subject, verdict, item, digest (since format 5)
//! position     (log, lane, namespace) -> lsn                        since format 8; before, without a log
//! dead_letter  (number) -> stream, namespace, position, time_ms, reason, record        since format 2
//!                          log                                      since format 8
//! stamp        (one) -> highest                                     since format 4
//! message_space (number) -> namespace, next, time_ms                since format 7
//! message      (place) -> partition, topic, key, id, time_ms, expires_at, attributes, payload
//!                                                                   place = number of the space * 2^40 + of the message
//! message_id   (namespace, id) -> digest, forget_at
//! message_group (namespace, name) -> state                         since format 10; a record of crate::api::groups
//! queue_item   (place) -> namespace, id, …, body                    since format 9; place as a message's
//! queue_body   (place) -> attributes, payload                       where the item lay when it was sent
//! queue_gone   (namespace, id) -> digest, sent_at, serial, forget_at    serial 0: nobody acked it
//! queue_call   (namespace, call) -> digest, moved, more, forget_at
//! ```
//!
//! `item` is clustered by its primary key, so one id's items lie together in key order and a put
//! touches one tree. Its rows must be small: a search compares with whole rows, those of inner
//! pages included, and SQLite copies a row that does not fit its page at each comparison. So a
//! value that would not fit has an empty `value`, and lies in chunks of at most 1 MiB from place
//! `rest` on, `bytes` long in all. Up to format 5 the first chunk, or the only one, was in `value`
//! instead; readers take both forms, and the writer moves the old ones step by step.
//!
//! `version` is sixteen bytes whose order as bytes is the order of versions. `kind` is the
//! compression of an item, or [`TOMBSTONE`](super::schema::TOMBSTONE). `digest` is for sixteen
//! bytes that stand for a value which the store cannot compare; nobody writes it yet.

/// Statements that make the next format of each: the first of an empty file, the second of the
/// first, and so on. A step that was once released is never changed.
pub(super) const STEPS: [&str; FORMAT as usize] = [
    FORMAT_1, FORMAT_2, FORMAT_3, FORMAT_4, FORMAT_5, FORMAT_6, FORMAT_7, FORMAT_8, FORMAT_9, FORMAT_10,
];

const FORMAT_1: &str = "
    CREATE TABLE namespace (
        id INTEGER PRIMARY KEY,
        state INTEGER NOT NULL
    );
    CREATE TABLE item (
        namespace INTEGER NOT NULL,
        id BLOB NOT NULL,
        key BLOB NOT NULL,
        version BLOB NOT NULL,
        expires_at INTEGER,
        kind INTEGER NOT NULL,
        value BLOB NOT NULL,
        rest INTEGER,
        bytes INTEGER,
        PRIMARY KEY (namespace, id, key)
    ) WITHOUT ROWID;
    CREATE INDEX item_expiry ON item (expires_at) WHERE expires_at IS NOT NULL;
    CREATE TABLE chunk (
        place INTEGER PRIMARY KEY,
        data BLOB NOT NULL
    );
    CREATE TRIGGER item_replaced AFTER UPDATE ON item WHEN old.rest IS NOT NULL BEGIN
        DELETE FROM chunk WHERE place BETWEEN old.rest AND old.rest + 15;
    END;
    CREATE TRIGGER item_removed AFTER DELETE ON item WHEN old.rest IS NOT NULL BEGIN
        DELETE FROM chunk WHERE place BETWEEN old.rest AND old.rest + 15;
    END;
    CREATE TABLE range_delete (
        number INTEGER PRIMARY KEY,
        namespace INTEGER NOT NULL,
        id BLOB NOT NULL,
        start BLOB NOT NULL,
        \"end\" BLOB NOT NULL,
        version BLOB NOT NULL,
        forget_at INTEGER NOT NULL
    );
    CREATE INDEX range_delete_subject ON range_delete (namespace, id);
    CREATE INDEX range_delete_expiry ON range_delete (forget_at);
    CREATE TABLE swap (
        slot INTEGER PRIMARY KEY,
        sequence INTEGER NOT NULL,
        namespace INTEGER NOT NULL,
        version BLOB NOT NULL,
        subject INTEGER NOT NULL,
        verdict INTEGER NOT NULL,
        value BLOB,
        expires_at INTEGER,
        compression INTEGER
    );
    CREATE INDEX swap_call ON swap (namespace, version, subject);
";

/// How far streams of records are applied, and the records that never can be. Numbers of dead
/// letters are not used twice, so that one which an operator has in mind does not become another.
const FORMAT_2: &str = "
    CREATE TABLE applied (
        stream INTEGER NOT NULL,
        namespace INTEGER NOT NULL,
        position INTEGER NOT NULL,
        PRIMARY KEY (stream, namespace)
    ) WITHOUT ROWID;
    CREATE TABLE dead_letter (
        number INTEGER PRIMARY KEY AUTOINCREMENT,
        stream INTEGER NOT NULL,
        namespace INTEGER NOT NULL,
        position INTEGER NOT NULL,
        time_ms INTEGER NOT NULL,
        reason TEXT NOT NULL,
        record BLOB NOT NULL
    );
    CREATE INDEX dead_letter_namespace ON dead_letter (namespace, number);
";

/// Whoever updates an item deletes the chunks of its old value: the writer, and the sweep.
/// `item_removed` stays, for deletes.
const FORMAT_3: &str = "DROP TRIGGER item_replaced";

/// The highest stamp that a gateway has given to a write, as a version. The hash separates stamps
/// from the versions of clients' tokens, whose times are the clients': a stamp's hash is a shard's
/// number and a position, while 54 bits of a token's are random.
const FORMAT_4: &str = "
    CREATE TABLE stamp (
        one INTEGER PRIMARY KEY CHECK (one = 1),
        highest BLOB NOT NULL
    );
    INSERT INTO stamp (one, highest) SELECT 1, highest FROM (
        SELECT max(version) AS highest FROM (
            SELECT max(version) AS version FROM item WHERE substr(version, 9) < x'0000000004000000'
            UNION ALL
            SELECT max(version) FROM range_delete WHERE substr(version, 9) < x'0000000004000000'
        )
    ) WHERE highest IS NOT NULL;
";

/// Which call it was; nothing for those of older programs, and for calls without a token.
const FORMAT_5: &str = "ALTER TABLE swap ADD COLUMN digest INTEGER";

/// Values out of the rows of items, deletes that are done before their rows are removed, room for a
/// digest, and for the version of the item that a refused swap has met. Cheap, whatever the file
/// holds: the values are moved later, while it is used. Chunks are deleted by whoever deletes their
/// row.
const FORMAT_6: &str = "
    ALTER TABLE item ADD COLUMN digest BLOB;
    DROP TRIGGER item_removed;
    CREATE TABLE orphan (
        place INTEGER PRIMARY KEY
    );
    CREATE TABLE removal (
        number INTEGER PRIMARY KEY,
        namespace INTEGER NOT NULL,
        id BLOB NOT NULL,
        start BLOB NOT NULL,
        \"end\" BLOB NOT NULL,
        version BLOB NOT NULL
    );
    CREATE INDEX removal_subject ON removal (namespace, id);
    CREATE TABLE relocation (
        number INTEGER PRIMARY KEY CHECK (number = 1),
        namespace INTEGER NOT NULL,
        id BLOB NOT NULL,
        key BLOB NOT NULL,
        items INTEGER NOT NULL,
        bytes INTEGER NOT NULL
    );
    ALTER TABLE swap ADD COLUMN item_version BLOB;
    INSERT INTO relocation SELECT 1, 0, x'', x'', 0, 0 WHERE EXISTS (SELECT 1 FROM item);
";

/// Messages. A namespace that has some gets a number, which is part of its messages' places, so
/// that they lie together; the numbers of messages go on when all are removed. `partition` is for
/// groups of subscribers.
const FORMAT_7: &str = "
    CREATE TABLE message_space (
        number INTEGER PRIMARY KEY AUTOINCREMENT,
        namespace INTEGER NOT NULL UNIQUE,
        next INTEGER NOT NULL,
        time_ms INTEGER NOT NULL
    );
    CREATE TABLE message (
        place INTEGER PRIMARY KEY,
        partition INTEGER NOT NULL,
        topic TEXT NOT NULL,
        key TEXT NOT NULL,
        id BLOB NOT NULL,
        time_ms INTEGER NOT NULL,
        expires_at INTEGER,
        attributes BLOB NOT NULL,
        payload BLOB NOT NULL
    );
    CREATE TABLE message_id (
        namespace INTEGER NOT NULL,
        id BLOB NOT NULL,
        digest INTEGER,
        forget_at INTEGER NOT NULL,
        PRIMARY KEY (namespace, id)
    ) WITHOUT ROWID;
    CREATE INDEX message_id_expiry ON message_id (forget_at);
";

/// Positions name their log. Those of older programs have none, an empty one, until the first log
/// that opens the file makes them its own; so have dead letters, where it stays.
const FORMAT_8: &str = "
    CREATE TABLE position (
        log BLOB NOT NULL,
        lane INTEGER NOT NULL,
        namespace INTEGER NOT NULL,
        lsn INTEGER NOT NULL,
        PRIMARY KEY (log, lane, namespace)
    ) WITHOUT ROWID;
    INSERT INTO position SELECT x'', stream, namespace, position FROM applied;
    DROP TABLE applied;
    ALTER TABLE dead_letter ADD COLUMN log BLOB NOT NULL DEFAULT x'';
";

/// Queues. A message's numbers are narrow and change with each attempt; what was sent lies beside
/// them and does not. `head` is 1 while a message is undone and nobody of its key is before it, so
/// that one search finds what is new, was delayed, and was abandoned.
const FORMAT_9: &str = "
    CREATE TABLE queue_item (
        place INTEGER PRIMARY KEY,
        namespace INTEGER NOT NULL,
        id BLOB NOT NULL,
        digest INTEGER,
        key TEXT,
        head INTEGER NOT NULL,
        phase INTEGER NOT NULL,
        at INTEGER NOT NULL,
        serial INTEGER NOT NULL,
        spent INTEGER NOT NULL,
        judged INTEGER NOT NULL,
        attempts_max INTEGER NOT NULL,
        sent_at INTEGER NOT NULL,
        leased_at INTEGER NOT NULL,
        begin_by INTEGER,
        dead_by INTEGER NOT NULL,
        look_at INTEGER NOT NULL,
        call BLOB,
        failure TEXT NOT NULL,
        body INTEGER NOT NULL
    );
    CREATE UNIQUE INDEX queue_item_id ON queue_item (namespace, id);
    CREATE INDEX queue_item_head ON queue_item (namespace, at, place) WHERE head = 1;
    CREATE INDEX queue_item_line ON queue_item (namespace, key, place) WHERE key IS NOT NULL AND phase < 2;
    CREATE INDEX queue_item_ended ON queue_item (namespace, phase, place) WHERE phase >= 2;
    CREATE INDEX queue_item_look ON queue_item (look_at);
    CREATE INDEX queue_item_call ON queue_item (namespace, call) WHERE call IS NOT NULL;
    CREATE TABLE queue_body (
        place INTEGER PRIMARY KEY,
        attributes BLOB NOT NULL,
        payload BLOB NOT NULL
    );
    CREATE TABLE queue_gone (
        namespace INTEGER NOT NULL,
        id BLOB NOT NULL,
        digest INTEGER,
        sent_at INTEGER NOT NULL,
        serial INTEGER NOT NULL,
        forget_at INTEGER NOT NULL,
        PRIMARY KEY (namespace, id)
    ) WITHOUT ROWID;
    CREATE INDEX queue_gone_expiry ON queue_gone (forget_at);
    CREATE TABLE queue_call (
        namespace INTEGER NOT NULL,
        call BLOB NOT NULL,
        digest INTEGER,
        moved INTEGER NOT NULL,
        more INTEGER NOT NULL,
        forget_at INTEGER NOT NULL,
        PRIMARY KEY (namespace, call)
    ) WITHOUT ROWID;
    CREATE INDEX queue_call_expiry ON queue_call (forget_at);
";

/// Groups of subscribers, each as one record.
const FORMAT_10: &str = "
    CREATE TABLE message_group (
        namespace INTEGER NOT NULL,
        name TEXT NOT NULL,
        state BLOB NOT NULL,
        PRIMARY KEY (namespace, name)
    ) WITHOUT ROWID;
";

/// The newest format, and the only one that is written.
pub(super) const FORMAT: i64 = 10;
