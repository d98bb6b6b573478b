-- One client may give all its requests one id: the newest of them must not cost a sort of all.
DROP INDEX request_log_client;
CREATE INDEX request_log_client ON request_log (client_request_id, time_ms) WHERE client_request_id IS NOT NULL;
