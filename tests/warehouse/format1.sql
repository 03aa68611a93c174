-- A lake as format 1 wrote it: its tables and the rows of one small release, dumped from that version.
CREATE SCHEMA lake.history;
CREATE TABLE lake.history.pairs (row_id VARCHAR NOT NULL, url_id VARCHAR NOT NULL, page_url VARCHAR NOT NULL,
    image_url VARCHAR NOT NULL, page_host VARCHAR NOT NULL, image_host VARCHAR NOT NULL, source VARCHAR NOT NULL,
    page_directives VARCHAR NOT NULL, crawl VARCHAR NOT NULL, digest UBIGINT NOT NULL, release_from BIGINT NOT NULL,
    release_to BIGINT);
CREATE TABLE lake.history.consent (row_id VARCHAR NOT NULL, url_id VARCHAR NOT NULL, allowed BOOLEAN NOT NULL, reason
    VARCHAR, evidence VARCHAR NOT NULL, checked_at TIMESTAMPTZ NOT NULL, crawl VARCHAR NOT NULL, digest UBIGINT NOT
    NULL, release_from BIGINT NOT NULL, release_to BIGINT);
CREATE TABLE lake.history.images (url_id VARCHAR NOT NULL, image_url VARCHAR NOT NULL, status VARCHAR NOT NULL, reason
    VARCHAR, error VARCHAR, http_status INTEGER, image_id VARCHAR, raw_shard VARCHAR, raw_offset BIGINT, raw_bytes
    BIGINT, attempts INTEGER NOT NULL, fetched_at TIMESTAMPTZ NOT NULL, crawl VARCHAR NOT NULL, digest UBIGINT NOT
    NULL, release_from BIGINT NOT NULL, release_to BIGINT);
CREATE TABLE lake.history.pictures (image_id VARCHAR NOT NULL, reason VARCHAR, width_px INTEGER, height_px INTEGER,
    format VARCHAR, phash VARCHAR, face_count INTEGER, detector VARCHAR NOT NULL, crawl VARCHAR NOT NULL, digest
    UBIGINT NOT NULL, release_from BIGINT NOT NULL, release_to BIGINT);
CREATE TABLE lake.history.hosts (host VARCHAR NOT NULL, robots_status INTEGER NOT NULL, robots_txt VARCHAR NOT NULL,
    checked_at TIMESTAMPTZ NOT NULL, crawl VARCHAR NOT NULL, digest UBIGINT NOT NULL, release_from BIGINT NOT NULL,
    release_to BIGINT);
CREATE TABLE lake.history.captions (row_id VARCHAR NOT NULL, rank INTEGER NOT NULL, kind VARCHAR NOT NULL, text
    VARCHAR NOT NULL, release_from BIGINT NOT NULL, release_to BIGINT);
CREATE TABLE lake.history.faces (image_id VARCHAR NOT NULL, face_index INTEGER NOT NULL, x0_px FLOAT NOT NULL, y0_px
    FLOAT NOT NULL, x1_px FLOAT NOT NULL, y1_px FLOAT NOT NULL, points_px FLOAT[] NOT NULL, score FLOAT NOT NULL,
    face_px FLOAT NOT NULL, roll_deg FLOAT NOT NULL, yaw_deg FLOAT NOT NULL, pitch_deg FLOAT NOT NULL, sharpness FLOAT
    NOT NULL, brightness FLOAT NOT NULL, release_from BIGINT NOT NULL, release_to BIGINT);
CREATE TABLE lake.history.decisions (row_id VARCHAR NOT NULL, kept BOOLEAN NOT NULL, reason VARCHAR NOT NULL, caption
    VARCHAR, caption_kind VARCHAR, cluster_id VARCHAR, split VARCHAR, release_from BIGINT NOT NULL, release_to BIGINT);
CREATE TABLE lake.history.corpus (row_id VARCHAR NOT NULL, image_id VARCHAR NOT NULL, page_url VARCHAR NOT NULL,
    image_url VARCHAR NOT NULL, page_host VARCHAR NOT NULL, image_host VARCHAR NOT NULL, caption VARCHAR NOT NULL,
    caption_kind VARCHAR NOT NULL, split VARCHAR NOT NULL, cluster_id VARCHAR NOT NULL, width_px INTEGER NOT NULL,
    height_px INTEGER NOT NULL, format VARCHAR NOT NULL, x0_px FLOAT NOT NULL, y0_px FLOAT NOT NULL, x1_px FLOAT NOT
    NULL, y1_px FLOAT NOT NULL, points_px FLOAT[] NOT NULL, score FLOAT NOT NULL, face_px FLOAT NOT NULL, roll_deg
    FLOAT NOT NULL, yaw_deg FLOAT NOT NULL, pitch_deg FLOAT NOT NULL, sharpness FLOAT NOT NULL, brightness FLOAT NOT
    NULL, phash VARCHAR NOT NULL, detector VARCHAR NOT NULL, source VARCHAR NOT NULL, raw_shard VARCHAR NOT NULL,
    raw_offset BIGINT NOT NULL, raw_bytes BIGINT NOT NULL, release_from BIGINT NOT NULL, release_to BIGINT);
CREATE TABLE lake.main.sources (crawl VARCHAR NOT NULL, source VARCHAR NOT NULL, parts BIGINT NOT NULL, pairs BIGINT
    NOT NULL, release BIGINT NOT NULL);
CREATE TABLE lake.main.releases (release BIGINT NOT NULL, created_at TIMESTAMPTZ NOT NULL, run_id VARCHAR NOT NULL,
    code_version VARCHAR NOT NULL, config VARCHAR NOT NULL, rules VARCHAR NOT NULL, inputs VARCHAR NOT NULL, counts
    VARCHAR NOT NULL);
CREATE TABLE lake.main.shards (release BIGINT NOT NULL, split VARCHAR NOT NULL, file VARCHAR NOT NULL, sha256 VARCHAR
    NOT NULL, samples BIGINT NOT NULL, bytes BIGINT NOT NULL);
CREATE TABLE lake.main.models (model VARCHAR NOT NULL, kind VARCHAR NOT NULL, preset VARCHAR NOT NULL, path VARCHAR
    NOT NULL, release BIGINT, shards_sha256 VARCHAR, alias VARCHAR, metrics VARCHAR, run_id VARCHAR NOT NULL,
    created_at TIMESTAMPTZ NOT NULL);
CREATE TABLE lake.main.evaluations (model VARCHAR NOT NULL, release BIGINT NOT NULL, metric VARCHAR NOT NULL, value
    DOUBLE NOT NULL, baseline DOUBLE, low DOUBLE, high DOUBLE, samples BIGINT, run_id VARCHAR NOT NULL, created_at
    TIMESTAMPTZ NOT NULL);
CREATE TABLE lake.main.runs (run_id VARCHAR NOT NULL, kind VARCHAR NOT NULL, status VARCHAR NOT NULL, started_at
    TIMESTAMPTZ NOT NULL, duration_s DOUBLE, host VARCHAR NOT NULL, code_version VARCHAR NOT NULL, config VARCHAR NOT
    NULL, result VARCHAR);
CREATE TABLE lake.main.reasons (reason VARCHAR, stage VARCHAR, stage_order INTEGER);
CREATE TABLE lake.main.lake_format (version INTEGER);
INSERT INTO lake.history.pairs VALUES
    ('334c42fa7c353e69214e3391644dd0d9', '7d78ae97411ee5420a8bef11c3843cd4', 'http://a.example/p0', 'http://a.example/a.jpg', 'http://a.example', 'http://a.example', 'list:test', '', 'raw/x/g001', 9990494317001349108, 1, NULL),
    ('45d151b60f362e572c80438384e194be', 'ff4ad8fb2c580b9581dcf13f0f89c07c', 'http://a.example/p0', 'http://a.example/b.jpg', 'http://a.example', 'http://a.example', 'list:test', '', 'raw/x/g001', 6564106560357989831, 1, NULL);
INSERT INTO lake.history.consent VALUES
    ('334c42fa7c353e69214e3391644dd0d9', '7d78ae97411ee5420a8bef11c3843cd4', TRUE, NULL, '', '2026-01-01 00:00:00+00', 'raw/x/g001', 291248039577280428, 1, NULL),
    ('45d151b60f362e572c80438384e194be', 'ff4ad8fb2c580b9581dcf13f0f89c07c', FALSE, 'robots_txt', '', '2026-01-01 00:00:00+00', 'raw/x/g001', 2859669797374482995, 1, NULL);
INSERT INTO lake.history.images VALUES
    ('7d78ae97411ee5420a8bef11c3843cd4', 'http://a.example/a.jpg', 'ok', NULL, NULL, NULL, 'ca978112ca1bbdcafac231b39a23dc4da786eff8147c4e72b9807785afee48bb', 'raw/x/images/00000.tar', 0, 1000, 1, '2026-01-01 00:00:00+00', 'raw/x/g001', 16314846450200675069, 1, NULL),
    ('ff4ad8fb2c580b9581dcf13f0f89c07c', 'http://a.example/b.jpg', 'refused', 'robots_txt', NULL, NULL, NULL, NULL, NULL, NULL, 1, '2026-01-01 00:00:00+00', 'raw/x/g001', 14539667017050747397, 1, NULL);
INSERT INTO lake.history.pictures VALUES
    ('ca978112ca1bbdcafac231b39a23dc4da786eff8147c4e72b9807785afee48bb', NULL, 256, 256, 'jpeg', '0cc175b9c0f1b6a8', 1, 'test 1', 'raw/x/g001', 6182981042234089288, 1, NULL);
INSERT INTO lake.history.hosts VALUES
    ('http://a.example', 404, '', '2026-01-01 00:00:00+00', 'raw/x/g001', 11213668206368873858, 1, NULL);
INSERT INTO lake.history.captions VALUES
    ('334c42fa7c353e69214e3391644dd0d9', 0, 'alt', 'A smiling woman with brown hair', 1, NULL),
    ('45d151b60f362e572c80438384e194be', 0, 'alt', 'A smiling woman with brown hair', 1, NULL);
INSERT INTO lake.history.faces VALUES
    ('ca978112ca1bbdcafac231b39a23dc4da786eff8147c4e72b9807785afee48bb', 0, 1.5, 1.5, 1.5, 1.5, [1.0, 2.0, 1.0, 2.0, 1.0, 2.0, 1.0, 2.0, 1.0, 2.0], 0.8999999761581421, 100.0, 1.5, 1.5, 1.5, 1.5, 1.5, 1, NULL);
INSERT INTO lake.history.decisions VALUES
    ('334c42fa7c353e69214e3391644dd0d9', TRUE, 'kept', 'A smiling woman with brown hair', 'alt', 'ca978112ca1bbdcafac231b39a23dc4da786eff8147c4e72b9807785afee48bb', 'train', 1, NULL),
    ('45d151b60f362e572c80438384e194be', FALSE, 'robots_txt', 'A smiling woman with brown hair', 'alt', NULL, NULL, 1, NULL);
INSERT INTO lake.history.corpus VALUES
    ('334c42fa7c353e69214e3391644dd0d9', 'ca978112ca1bbdcafac231b39a23dc4da786eff8147c4e72b9807785afee48bb', 'http://a.example/p0', 'http://a.example/a.jpg', 'http://a.example', 'http://a.example', 'A smiling woman with brown hair', 'alt', 'train', 'ca978112ca1bbdcafac231b39a23dc4da786eff8147c4e72b9807785afee48bb', 256, 256, 'jpeg', 1.5, 1.5, 1.5, 1.5, [1.0, 2.0, 1.0, 2.0, 1.0, 2.0, 1.0, 2.0, 1.0, 2.0], 0.8999999761581421, 100.0, 1.5, 1.5, 1.5, 1.5, 1.5, '0cc175b9c0f1b6a8', 'test 1', 'list:test', 'raw/x/images/00000.tar', 0, 1000, 1, NULL);
INSERT INTO lake.main.sources VALUES
    ('raw/x/g001', 'list:test', 1, 2, 1);
INSERT INTO lake.main.releases VALUES
    (1, '2026-01-01 00:00:00+00', 'r1', '0.1.0', '{}', '{"max_caption_chars": 400, "min_caption_words": 3, "min_face_px": 64, "min_score": 0.5, "min_side_px": 64, "near_duplicate_bits": 3, "one_face": true, "test_share": 0.05, "val_share": 0.05}', '{"raw/x/g001": 1}', '{"pairs": 2, "downloaded": 1, "with_face": 1, "kept": 1, "reasons": {"robots_txt": 1, "kept": 1}, "splits": {"train": 1}}');
INSERT INTO lake.main.lake_format VALUES
    (1);
CREATE VIEW lake.main.pairs AS SELECT * EXCLUDE (crawl, digest, release_from, release_to) FROM history.pairs WHERE
    release_to IS NULL;
CREATE VIEW lake.main.consent AS SELECT * EXCLUDE (crawl, digest, release_from, release_to) FROM history.consent WHERE
    release_to IS NULL;
CREATE VIEW lake.main.images AS SELECT * EXCLUDE (crawl, digest, release_from, release_to) FROM history.images WHERE
    release_to IS NULL;
CREATE VIEW lake.main.pictures AS SELECT * EXCLUDE (crawl, digest, release_from, release_to) FROM history.pictures
    WHERE release_to IS NULL;
CREATE VIEW lake.main.hosts AS SELECT * EXCLUDE (crawl, digest, release_from, release_to) FROM history.hosts WHERE
    release_to IS NULL;
CREATE VIEW lake.main.captions AS SELECT * EXCLUDE (release_from, release_to) FROM history.captions WHERE release_to
    IS NULL;
CREATE VIEW lake.main.faces AS SELECT * EXCLUDE (release_from, release_to) FROM history.faces WHERE release_to IS NULL;
CREATE VIEW lake.main.decisions AS SELECT * EXCLUDE (release_from, release_to) FROM history.decisions WHERE release_to
    IS NULL;
CREATE VIEW lake.main.corpus AS SELECT * EXCLUDE (release_from, release_to) FROM history.corpus WHERE release_to IS
    NULL;
CREATE VIEW lake.main.funnel AS WITH counted AS (SELECT reason, count(*) AS pairs FROM history.decisions WHERE
    release_to IS NULL GROUP BY reason) SELECT stage_order, stage, reason, pairs, (sum(pairs) OVER () - sum(pairs)
    FILTER (reason <> 'kept') OVER (ORDER BY stage_order))::BIGINT AS remaining FROM counted JOIN main.reasons USING
    (reason) ORDER BY stage_order;
CREATE VIEW lake.main.lineage AS SELECT c.row_id, c.image_id, c.source, c.page_url, c.image_url, p.crawl, c.raw_shard,
    c.detector, c.split, c.release_from AS release, r.created_at, r.run_id, r.code_version FROM (SELECT * FROM
    history.corpus WHERE release_to IS NULL) c JOIN (SELECT row_id, crawl FROM history.pairs WHERE release_to IS NULL)
    p USING (row_id) LEFT JOIN main.releases r ON r.release = c.release_from;
