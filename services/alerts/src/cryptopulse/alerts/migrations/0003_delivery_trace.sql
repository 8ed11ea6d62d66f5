-- The trace of what caused a delivery, W3C `traceparent`: its attempts, made later and maybe elsewhere, belong to it.
ALTER TABLE deliveries ADD COLUMN traceparent text;
