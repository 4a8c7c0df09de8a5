//! Every limit of the server, with its unit in its name. Limits of the engine are in
//! `agni_core::limits`.

/// Most runtimes a server may have.
pub const RUNTIMES_MAX: usize = 64;
/// Most runtimes that a server takes by itself.
pub const RUNTIMES_DEFAULT_MAX: usize = 8;
/// Open connections.
pub const CONNECTIONS_DEFAULT: usize = 10_000;
/// Open connections of one identity.
pub const CONNECTIONS_PER_IDENTITY_DEFAULT: usize = 64;
/// HTTP/2 streams of one connection.
pub const STREAMS_DEFAULT: u32 = 100;
/// Watches of one runtime.
pub const WATCHES_DEFAULT: usize = 10_000;

/// Bytes of one request message or body.
pub const MESSAGE_BYTES_DEFAULT: usize = 1 << 20;
/// Least that `max_message_bytes` may be: a record of full size must fit.
pub const MESSAGE_BYTES_MIN: usize = 64 << 10;
/// Most that `max_message_bytes` may be.
pub const MESSAGE_BYTES_MAX: usize = 64 << 20;
/// Bytes of requests that have arrived in part, of all connections together.
pub const ARRIVING_BYTES_MAX: usize = 256 << 20;
/// Bytes of an HTTP body that is too large which are still read, so that the client sees why.
pub const LINGER_BYTES_MAX: usize = 128 << 20;
/// Bytes of all headers of a request.
pub const HEADER_BYTES_MAX: u32 = 16 << 10;
/// Headers of an HTTP/1 request.
pub const HEADERS_MAX: usize = 64;
/// Time for the first bytes, for headers, for a request's message, in milliseconds.
pub const HEADER_TIMEOUT_MS_DEFAULT: u64 = 5_000;
/// Time that an HTTP/1 connection may rest between two requests, in milliseconds: longer than what
/// load balancers and HTTP libraries keep theirs for, so that they don't send into one that closes.
pub const IDLE_TIMEOUT_MS: u64 = 75_000;
/// Time between two HTTP/2 pings to a client, in milliseconds, whether it has requests open or not.
pub const PING_INTERVAL_MS: u64 = 20_000;
/// Time in which a client must answer a ping before its connection ends, in milliseconds.
pub const PING_TIMEOUT_MS: u64 = 10_000;
/// Silence after which TCP asks whether a client is still there, in milliseconds. It finds dead
/// peers that speak HTTP/1.
pub const TCP_KEEPALIVE_IDLE_MS: u64 = 20_000;
/// Time between two such questions of TCP, in milliseconds.
pub const TCP_KEEPALIVE_INTERVAL_MS: u64 = 5_000;
/// Unanswered questions of TCP that end a connection.
pub const TCP_KEEPALIVE_PROBES_MAX: u32 = 2;
/// Time that sent bytes may stay unacknowledged, or unsent because the client takes none, before
/// the connection ends, in milliseconds (Linux).
pub const TCP_UNACKNOWLEDGED_MS_MAX: u64 = 30_000;
/// HTTP/2 flow-control window of one stream, in bytes.
pub const STREAM_WINDOW_BYTES: u32 = 1 << 20;
/// HTTP/2 flow-control window of a connection, in bytes.
pub const CONNECTION_WINDOW_BYTES: u32 = 4 << 20;
/// Bytes that one stream may keep ready to be sent.
pub const SEND_BUFFER_BYTES: usize = 256 << 10;
/// Streams that a client may reset before the server has looked at them.
pub const PENDING_RESETS_MAX: usize = 64;
/// Bytes of a write that waits for others of its connection's turn, so that they leave together.
pub const SMALL_WRITE_BYTES_MAX: usize = 4 << 10;
/// Bytes that one connection may gather before they go out.
pub const GATHERED_BYTES_MAX: usize = 64 << 10;
/// Connections waiting to be accepted.
pub const BACKLOG: i32 = 1024;
/// Time between two looks at whether certificate, key or trust bundle have changed, in
/// milliseconds.
pub const TLS_RELOAD_MS_DEFAULT: u64 = 2_000;
/// Bytes of a file that is read as a certificate, key or trust bundle.
pub const TLS_FILE_BYTES_MAX: usize = 1 << 20;
/// Bytes of a SPIFFE ID.
pub const SPIFFE_ID_BYTES_MAX: usize = 2_048;
/// Bytes of a trust domain's name.
pub const TRUST_DOMAIN_BYTES_MAX: usize = 255;
/// Time for which a start reads again while certificate and key don't belong together, in
/// milliseconds.
pub const TLS_MISMATCH_PATIENCE_MS: u64 = 500;
/// Time in which handshakes that fail for one reason are logged once, in milliseconds.
pub const TLS_COMPLAINT_PAUSE_MS: u64 = 60_000;
/// Time that requests under way get when the certificate of their connection has expired, in
/// milliseconds.
pub const TLS_EXPIRED_GRACE_MS: u64 = 10_000;
/// Bytes of the request line and headers of an HTTP/1 request, and its read buffer.
pub const HTTP1_BUFFER_BYTES: usize = 64 << 10;
/// Answers of a `KeepAlive` stream that may wait for its reader.
pub const KEEPALIVE_ANSWERS_MAX: usize = 4;

/// Lists, discoveries and watches that begin, under way at once on one runtime, above which no list
/// or discovery begins.
pub const MANY_READS_MAX: usize = 512;
/// The same above which no watch begins: all watchers of a node that was away come back together.
pub const WATCH_STARTS_MAX: usize = 4_096;
/// Writes of one batch.
pub const BATCH_OPERATIONS_MAX: usize = 1_000;
/// Bytes of a region that is preferred.
pub const REGION_BYTES_MAX: usize = agni_core::validate::REGION_BYTES_MAX;
pub use agni_core::validate::{
    LABEL_KEY_BYTES_MAX, LABELS_MAX, NAME_BYTES_MAX, PAYLOAD_BYTES_MAX, PUBLIC_KEY_BYTES_MAX,
    RENEW_LEASES_MAX, TTL_MS_MAX, TTL_MS_MIN,
};
/// Values of one list of a filter.
pub const FILTER_VALUES_MAX: usize = agni_core::validate::FILTER_REGIONS_MAX;
/// Paths of an update mask.
pub const MASK_PATHS_MAX: usize = 128;
/// Records of a page.
pub const PAGE_RECORDS_MAX: usize = 1_000;
/// Records of a page that doesn't say.
pub const PAGE_RECORDS_DEFAULT: usize = 100;
/// Bytes of a page.
pub const PAGE_BYTES_MAX: usize = 1 << 20;
/// Records that one Discover may answer.
pub const DISCOVER_RECORDS_MAX: u32 = 100;
/// Records of a Discover that doesn't say.
pub const DISCOVER_RECORDS_DEFAULT: u32 = 3;
/// Candidates for each place.
pub const DISCOVER_CHOICES_MAX: u32 = 16;
/// Candidates for each place where the request doesn't say.
pub const DISCOVER_CHOICES_DEFAULT: u32 = 2;
/// Names to explain.
pub const EXPLAIN_NAMES_MAX: usize = 100;
/// Records explained where none is named.
pub const EXPLAIN_SAMPLE: usize = 10;

/// Events of one partition in one message of a watch.
pub const WATCH_EVENTS_MAX: usize = 256;
/// Bytes of events of one partition in one message of a watch.
pub const WATCH_EVENTS_BYTES_MAX: usize = 256 << 10;
/// Records of one message of a difference.
pub const WATCH_SYNC_RECORDS_MAX: usize = 500;
/// Chunks that one runtime keeps for other watches at the same place.
pub const WATCH_CACHE_CHUNKS_MAX: usize = 4_096;
/// Bytes of these chunks.
pub const WATCH_CACHE_BYTES_MAX: usize = 32 << 20;
/// Least time between two progress messages, in milliseconds.
pub const PROGRESS_MS_MIN: i64 = 100;
/// Most time between two progress messages, in milliseconds.
pub const PROGRESS_MS_MAX: i64 = 600_000;
/// Time between two progress messages where the request doesn't say, in milliseconds.
pub const PROGRESS_MS_DEFAULT: i64 = 10_000;
/// Time between two looks at which watches need a progress message, in milliseconds.
pub const WATCH_TICK_MS: u64 = 50;
/// With many watches, changes wait this long for each, in microseconds, so that one message
/// carries several.
pub const WATCH_GATHER_US_EACH: u64 = 10;
/// Most that changes wait for each other, in milliseconds.
pub const WATCH_GATHER_MS_MAX: u64 = 40;

/// Bytes that a node sends of snapshots in a second, to all others together.
pub const SNAPSHOT_BYTES_PER_S: u64 = 64 << 20;
/// Snapshots that a node sends at the same time.
pub const SNAPSHOTS_SENT_AT_ONCE: usize = 2;
/// Bytes of one piece of a snapshot.
pub const SNAPSHOT_PIECE_BYTES: usize = 256 << 10;
/// Time in which a piece of a snapshot must have been taken by the other node, in milliseconds.
pub const SNAPSHOT_PIECE_MS_MAX: u64 = 10_000;
/// Bytes that a node streams into backups in a second, into all of them together.
pub const BACKUP_BYTES_PER_S: u64 = 64 << 20;
/// Least rate of a backup, in bytes a second: what is slower would look like a reader that is gone.
pub const BACKUP_BYTES_PER_S_MIN: u64 = 16 << 10;
/// Backups that a node makes at the same time.
pub const BACKUPS_AT_ONCE: usize = 2;
/// Copies of partitions that a node sends for the backups of others at the same time.
pub const COPIES_AT_ONCE: usize = 4;
/// Pieces of a backup that may wait for its reader, of `SNAPSHOT_PIECE_BYTES` at most each.
pub const BACKUP_PIECES_READY_MAX: usize = 2;
/// Time in which a backup's reader must take a piece, in milliseconds.
pub const BACKUP_PIECE_MS_MAX: u64 = 60_000;
/// Time that another node has to take the snapshot that is to be copied, in milliseconds.
pub const BACKUP_SNAPSHOT_MS_MAX: u64 = 120_000;
/// Time that a replica has to apply what must be in a copy of it, in milliseconds.
pub const BACKUP_CATCH_UP_MS_MAX: u64 = 2_000;
/// Time between two looks at whether it has, in milliseconds.
pub const BACKUP_CATCH_UP_PAUSE_MS: u64 = 20;
/// Time after which a partition that nobody gives anything of ends a backup, in milliseconds.
pub const BACKUP_WAIT_MS_MAX: u64 = 30_000;
/// Attempts to send one partition, each from its beginning.
pub const BACKUP_ATTEMPTS_MAX: usize = 64;
/// First pause before another source of a partition is asked, in milliseconds; it doubles.
pub const BACKUP_PAUSE_MS_MIN: u64 = 50;
/// Longest such pause, in milliseconds.
pub const BACKUP_PAUSE_MS_MAX: u64 = 1_000;
/// Time for a connection to another node, in milliseconds.
pub const PEER_CONNECT_MS_MAX: u64 = 1_000;
/// What TCP adds to the round trip to another node, at least, before it sends again what was lost,
/// in microseconds (Linux 6.15).
pub const PEER_RETRY_US_MIN: u32 = 20_000;
/// The longest pause between two such tries, in milliseconds (Linux 6.15).
pub const PEER_RETRY_MS_MAX: u32 = 1_000;
/// Time for an answer of another node to a question, in milliseconds.
pub const PEER_ANSWER_MS_MAX: u64 = 3_000;
/// Time between two HTTP/2 pings to another node, in milliseconds.
pub const PEER_PING_INTERVAL_MS: u64 = 2_000;
/// Time in which another node must answer a ping, in milliseconds.
pub const PEER_PING_TIMEOUT_MS: u64 = 2_000;
/// HTTP/2 flow-control window of one stream between nodes, in bytes.
pub const PEER_STREAM_WINDOW_BYTES: u32 = 2 << 20;
/// HTTP/2 flow-control window of a connection between nodes, in bytes.
pub const PEER_CONNECTION_WINDOW_BYTES: u32 = 4 << 20;
/// Time between two looks at whether the members have changed, in milliseconds.
pub const PEER_MEMBERS_CHECK_MS: u64 = 100;
/// Time without anybody who leads the system group after which a node asks whether it still
/// belongs to its cluster, in milliseconds.
pub const SILENCE_BEFORE_ASKING_MS: u64 = 3_000;
/// Turns of the driver whose messages may wait for one node.
pub const PEER_QUEUE_TURNS_MAX: usize = 4_096;
/// Bytes of messages that may wait for one node.
pub const PEER_QUEUE_BYTES_MAX: usize = 64 << 20;
/// Batches that may wait for one connection.
pub const PEER_BATCHES_READY_MAX: usize = 2;
/// Connections that batches to one node go over, where many packets are lost.
pub const PEER_LANES_MAX: usize = 8;
/// Time between two looks at whether TCP tries again, in milliseconds.
pub const PEER_LANES_CHECK_MS: u64 = 5;
/// The share of looks at which it does from which on many packets count as lost, in percent.
pub const PEER_LOSS_PERCENT: u8 = 6;
/// Time in which one more connection is made, where many are, in milliseconds.
pub const PEER_LANES_GROW_MS: u64 = 20;
/// Time with few lost packets after which one connection is enough again, in milliseconds.
pub const PEER_LANES_CALM_MS: u64 = 60_000;
/// Connections that a small batch goes over, where many packets are lost.
pub const PEER_COPIES_MAX: usize = 3;
/// Time for which it still does when few are, in milliseconds.
pub const PEER_COPY_MS: u64 = 1_000;
/// Bytes of a batch that counts as small.
pub const PEER_COPY_BYTES_MAX: usize = 8 << 10;
/// Raft messages of one batch.
pub const PEER_BATCH_MESSAGES_MAX: usize = 256;
/// Bytes of Raft messages after which a batch is full.
pub const PEER_BATCH_BYTES_MAX: usize = 1 << 20;
/// Bytes of one message between nodes: a full batch, and one Raft message of the largest size on
/// top of it.
pub const PEER_MESSAGE_BYTES_MAX: usize = 64 << 20;
/// Least time before a connection is tried again, in milliseconds.
pub const PEER_BACKOFF_MS_MIN: u64 = 50;
/// Most time before a connection is tried again, in milliseconds.
pub const PEER_BACKOFF_MS_MAX: u64 = 2_000;
/// How often a node that asks to join is sent on to another one.
pub const JOIN_HOPS_MAX: u32 = 3;
/// Time between two attempts to found or to join a cluster, in milliseconds.
pub const GATHER_PAUSE_MS: u64 = 200;
/// Attempts after which the log says again what a node waits for.
pub const GATHER_ATTEMPTS_A_LOG_LINE: u32 = 25;
/// Seeds of a configuration.
pub const SEEDS_MAX: usize = 16;
/// Damaged data directories that a node keeps for people before it refuses to go on.
pub const DAMAGED_KEPT_MAX: usize = 2;
/// Pause after a connection that can't be accepted, in milliseconds.
pub const ACCEPT_PAUSE_MS: u64 = 20;
/// Time between two looks at whether the node is ready, for gRPC's health service, in milliseconds.
pub const HEALTH_LOOK_MS: u64 = 250;
/// Bytes of a `tracestate` that is passed on.
pub const TRACE_STATE_BYTES_MAX: usize = 512;
/// Connections that the health port serves at the same time.
pub const HEALTH_CONNECTIONS_MAX: usize = 16;
/// Time for a request to the health port, and for its answer, in milliseconds.
pub const HEALTH_PATIENCE_MS: u64 = 5_000;
/// Time without a turn of the driver after which a node doesn't count as alive, in milliseconds.
pub const DRIVER_SILENT_MS_MAX: u64 = 10_000;
/// Bytes of a node's name.
pub const NODE_NAME_BYTES_MAX: usize = 63;
/// Nodes that may be answered although they are not known yet.
pub const PEER_GUESTS_MAX: usize = 64;
/// Time that a request waits for a partition to have a leader that can be reached, in milliseconds:
/// a minority refuses within 2 s, and an election takes no more than 1.6 s.
pub const ROUTE_WAIT_MS_MAX: u64 = 1_900;
/// What a write gets at least for its answer once it is on its way to a leader, in milliseconds:
/// when that is over, nobody knows what came of it.
pub const ROUTE_WRITE_MS_MIN: u64 = 500;
/// First pause before a partition's leader is looked for again, in milliseconds; it doubles.
pub const ROUTE_PAUSE_MS_MIN: u64 = 5;
/// Longest such pause, in milliseconds.
pub const ROUTE_PAUSE_MS_MAX: u64 = 160;
/// Redirects that are followed at once, without a pause.
pub const ROUTE_REDIRECTS_MAX: u32 = 3;
/// Records of one sample that another node may ask for.
pub const SAMPLE_RECORDS_MAX: u32 = 3_200;
/// Time in which a node that stops hands over what it leads, in milliseconds.
pub const HAND_OVER_MS_MAX: u64 = 5_000;
/// Time that is spent on finding a leader for a list of members, in milliseconds.
pub const FIND_LEADER_MS_MAX: u64 = 500;
/// Newest changes that a runtime keeps of a watched partition that is on another node.
pub const REMOTE_EVENTS_MAX: usize = 8_192;
/// Their bytes.
pub const REMOTE_EVENTS_BYTES_MAX: usize = 4 << 20;
/// Time that another node waits for a change before it answers that there is none, in milliseconds;
/// well below `ROUTE_WAIT_MS_MAX`.
pub const REMOTE_WAIT_MS: u64 = 1_000;
/// Pause before another node is asked again, in milliseconds.
pub const REMOTE_PAUSE_MS: u64 = 100;
/// Connections of other nodes that may wait to be served after their handshake.
pub const PEER_GREETINGS_MAX: usize = 64;
