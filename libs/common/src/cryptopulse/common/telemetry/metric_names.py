"""Every metric and label name, one block per owner, alphabetical: a typo is a type error.

Prefix `cryptopulse_`; base units (`_seconds`, `_bytes`, `_total`, `_ratio`); labels take values of closed sets only,
never a user, key, id or raw path.
"""

from __future__ import annotations

from typing import Literal

RuntimeMetric = Literal[
    "cryptopulse_build_info",
    "cryptopulse_dependency_up",
    "cryptopulse_draining",
    "cryptopulse_event_loop_lag_seconds",
    "cryptopulse_event_loop_tasks",
    "cryptopulse_loop_heartbeat_age_seconds",
    "cryptopulse_loop_restarts_total",
]
HttpMetric = Literal[
    "cryptopulse_http_deadlines_total",
    "cryptopulse_http_request_duration_seconds",
    "cryptopulse_http_requests_in_progress",
    "cryptopulse_http_requests_total",
    "cryptopulse_service_circuit_open",
    "cryptopulse_service_request_duration_seconds",
    "cryptopulse_service_requests_total",
]
BusMetric = Literal[
    "cryptopulse_bus_confirm_seconds",
    "cryptopulse_bus_connected",
    "cryptopulse_bus_handling_seconds",
    "cryptopulse_bus_messages_confirmed_total",
    "cryptopulse_bus_messages_dead_lettered_total",
    "cryptopulse_bus_messages_dropped_total",
    "cryptopulse_bus_messages_handled_total",
    "cryptopulse_bus_messages_published_total",
    "cryptopulse_bus_messages_retried_total",
    "cryptopulse_bus_messages_returned_total",
    "cryptopulse_bus_queue_age_seconds",
    "cryptopulse_bus_queue_ready_messages",
    "cryptopulse_bus_reconnects_total",
]
ShardMetric = Literal[
    "cryptopulse_shards_epoch_refused_total",
    "cryptopulse_shards_owned",
]
StoreMetric = Literal[
    "cryptopulse_database_pool_connections",
    "cryptopulse_database_pool_in_use_connections",
    "cryptopulse_database_pool_waiting_callers",
    "cryptopulse_outbox_failed_rows",
    "cryptopulse_outbox_oldest_age_seconds",
    "cryptopulse_outbox_pending_rows",
    "cryptopulse_outbox_published_total",
    "cryptopulse_store_errors_total",
]
IngestorMetric = Literal[
    "cryptopulse_feed_connected",
    "cryptopulse_feed_connections",
    "cryptopulse_feed_connects_total",
    "cryptopulse_frames_refused_total",
    "cryptopulse_history_candles_total",
    "cryptopulse_history_series_left",
    "cryptopulse_ingest_buffer_trades",
    "cryptopulse_last_tick_timestamp_seconds",
    "cryptopulse_provider_budget_left_ratio",
    "cryptopulse_provider_requests_total",
    "cryptopulse_rows_refused_total",
    "cryptopulse_sequence_gaps_total",
    "cryptopulse_streams_silent_total",
    "cryptopulse_tick_batches_resent_total",
    "cryptopulse_ticks_dropped_total",
    "cryptopulse_ticks_total",
    "cryptopulse_trades_duplicate_total",
    "cryptopulse_trades_held",
    "cryptopulse_trades_lost_total",
    "cryptopulse_trades_repaired_total",
    "cryptopulse_venue_clock_offset_seconds",
]
IndicatorsMetric = Literal[
    "cryptopulse_candles_checked_total",
    "cryptopulse_candles_closed_total",
    "cryptopulse_indicators_backpressure_total",
    "cryptopulse_late_ticks_total",
    "cryptopulse_seconds_dropped_total",
    "cryptopulse_series_rebuilt_total",
    "cryptopulse_tick_age_seconds",
    "cryptopulse_witness_checks_total",
    "cryptopulse_witness_mismatches_total",
]
AlertsMetric = Literal[
    "cryptopulse_alert_events_total",
    "cryptopulse_alert_latency_seconds",
    "cryptopulse_webhook_attempts_total",
]
PortfolioMetric = Literal["cryptopulse_portfolio_valuations_total",]
GatewayMetric = Literal[
    "cryptopulse_cache_lookups_total",
    "cryptopulse_rate_limited_total",
    "cryptopulse_socket_frames_dropped_total",
    "cryptopulse_socket_frames_sent_total",
    "cryptopulse_socket_slow_closes_total",
    "cryptopulse_sockets_closed_total",
    "cryptopulse_sockets_open",
]

MetricName = (
    ShardMetric
    | RuntimeMetric
    | HttpMetric
    | BusMetric
    | StoreMetric
    | IngestorMetric
    | IndicatorsMetric
    | AlertsMetric
    | PortfolioMetric
    | GatewayMetric
)

LabelName = Literal[
    "channel",
    "commit",
    "consumer",
    "dependency",
    "interval",
    "kind",
    "link",
    "loop",
    "method",
    "outcome",
    "policy",
    "provider",
    "python",
    "queue",
    "reason",
    "route",
    "schema",
    "service",
    "shard",
    "state",
    "status",
    "store",
    "target",
    "tier",
    "topic",
    "venue",
    "version",
]
