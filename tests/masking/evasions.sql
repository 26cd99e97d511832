-- Ways to get at a protected column (customers.ssn) other than by its own name in a
-- select list. One statement a line; none of them may reach the target unasked.
SELECT id FROM customers WHERE ssn LIKE 'c%'
SELECT id FROM customers WHERE customers.ssn > 'b'
SELECT id FROM customers ORDER BY ssn
SELECT ssn FROM customers ORDER BY 1
SELECT ssn AS x FROM customers ORDER BY x
SELECT ssn x FROM customers ORDER BY x
SELECT id, ssn FROM customers ORDER BY id, 2
SELECT ssn FROM customers ORDER BY 0x1
SELECT ssn FROM customers GROUP BY ROLLUP (1)
SELECT ssn FROM customers GROUP BY 1
SELECT ssn AS g FROM customers GROUP BY g
SELECT count(*) FROM customers GROUP BY ssn
SELECT count(*) FROM customers HAVING max(ssn) > 'a'
SELECT DISTINCT ssn FROM customers
SELECT DISTINCT ON (ssn) id FROM customers
SELECT DISTINCT ON (id) * FROM customers
SELECT ssn || '' FROM customers
SELECT ssn::text FROM customers
SELECT CAST(ssn AS text) FROM customers
SELECT (ssn) FROM customers
SELECT ssn COLLATE "C" FROM customers
SELECT upper(ssn) FROM customers
SELECT substr(ssn, 1, 3) FROM customers
SELECT length(ssn), id FROM customers
SELECT max(ssn) FROM customers
SELECT string_agg(ssn, ',') FROM customers
SELECT array_agg(ssn) FROM customers
SELECT ARRAY[ssn] FROM customers
SELECT ROW(ssn) FROM customers
SELECT ROW(customers.*) FROM customers
SELECT CASE WHEN ssn = 'x' THEN 1 ELSE 0 END FROM customers
SELECT coalesce(ssn, '') FROM customers
SELECT ssn IS NULL, ssn FROM customers
SELECT NOT ssn FROM customers
SELECT id IS DISTINCT FROM 1, ssn::text FROM customers
SELECT customers FROM customers
SELECT c FROM customers c
SELECT c FROM customers AS c
SELECT c::text FROM customers c
SELECT (c).ssn FROM customers c
SELECT (c.*)::text FROM customers c
SELECT (customers).ssn FROM customers
SELECT row_to_json(c) FROM customers c
SELECT row_to_json(customers) FROM customers
SELECT to_jsonb(c) FROM customers c
SELECT to_jsonb(c.*) FROM customers c
SELECT jsonb_agg(c) FROM customers c
SELECT json_agg(customers) FROM customers
SELECT json_build_array(c) FROM customers c
SELECT format('%s', c) FROM customers c
SELECT concat(c) FROM customers c
SELECT concat(VARIADIC ARRAY[c.ssn]) FROM customers c
SELECT quote_literal(c) FROM customers c
SELECT hash_record(c) FROM customers c
SELECT record_out(c) FROM customers c
SELECT c.row_to_json FROM customers c
SELECT c.to_jsonb FROM customers c
SELECT c.concat FROM customers c
SELECT c.record_out FROM customers c
SELECT customers.to_json FROM customers
SELECT public.customers.to_jsonb FROM customers
SELECT c."row_to_json" FROM customers c
SELECT id FROM customers c WHERE c.concat LIKE '%c%'
SELECT ssn(customers) FROM customers
SELECT ssn(c) FROM customers c
SELECT x FROM (SELECT ssn AS x FROM customers) q
SELECT * FROM (SELECT ssn AS x FROM customers) q
SELECT x FROM (SELECT * FROM customers) q(x)
SELECT q.id FROM (SELECT * FROM customers) q
SELECT q.x FROM (TABLE customers) q(x)
SELECT b FROM customers c(a, b)
SELECT * FROM customers c(a, b)
SELECT c.b FROM customers AS c (a, b)
SELECT (SELECT ssn FROM customers LIMIT 1)
SELECT id, (SELECT ssn FROM customers LIMIT 1) FROM orders
SELECT ARRAY(SELECT ssn FROM customers)
SELECT id FROM orders WHERE EXISTS (SELECT * FROM customers WHERE ssn = 'x')
SELECT id FROM orders WHERE 'x' IN (SELECT ssn FROM customers)
SELECT o.id FROM orders o JOIN customers c ON c.ssn = o.note
SELECT o.id FROM orders o JOIN customers c USING (id, ssn)
SELECT id FROM customers NATURAL JOIN orders
SELECT q.* FROM customers c, LATERAL (SELECT c.*) q
SELECT q.* FROM customers c CROSS JOIN LATERAL (SELECT c.ssn AS z) q
SELECT j.value FROM customers c, jsonb_each_text(to_jsonb(c)) j
SELECT v FROM customers c, LATERAL (VALUES (c.ssn)) q(v)
SELECT v FROM customers c, unnest(ARRAY[c.ssn]) v
SELECT a.*, b.ssn AS y, b.* FROM customers a, customers b
SELECT id FROM customers WINDOW w AS (ORDER BY ssn)
SELECT rank() OVER (ORDER BY ssn) FROM customers
SELECT first_value(ssn) OVER () FROM customers
SELECT count(*) FILTER (WHERE ssn = 'x') FROM customers
SELECT percentile_disc(0.5) WITHIN GROUP (ORDER BY ssn) FROM customers
SELECT ssn FROM customers UNION SELECT note FROM orders
SELECT ssn FROM customers UNION ALL SELECT 'x'
SELECT 'x' UNION ALL SELECT ssn FROM customers
SELECT ssn FROM customers EXCEPT SELECT 'x'
SELECT 'x' INTERSECT SELECT ssn FROM customers
(SELECT ssn FROM customers)
TABLE customers
TABLE public.customers
WITH q AS (SELECT ssn AS x FROM customers) SELECT x FROM q
WITH q AS (SELECT * FROM customers) SELECT * FROM q
WITH q(x) AS (SELECT ssn FROM customers) SELECT x FROM q
WITH q AS (SELECT 1) SELECT ssn FROM customers
WITH q AS (TABLE customers) SELECT q::text FROM q
WITH RECURSIVE r AS (SELECT ssn FROM customers UNION ALL SELECT ssn FROM r WHERE false) SELECT * FROM r
WITH d AS (DELETE FROM orders RETURNING *) SELECT customers FROM customers
VALUES ((SELECT ssn FROM customers LIMIT 1))
SELECT U&"\0073sn" FROM customers
SELECT U&"s!0073n" UESCAPE '!' FROM customers
SELECT "ssn" || '' FROM "customers"
SELECT SSN || '' FROM CUSTOMERS
SELECT c . ssn /* x */ || '' FROM customers c
SELECT xmlelement(name a, ssn) FROM customers
SELECT xmlforest(ssn) FROM customers
SELECT json_object_agg(id, ssn) FROM customers
SELECT query_to_xml('SELECT * FROM customers', true, false, '')
SELECT table_to_xml('customers', true, false, '')
SELECT database_to_xml(true, false, '')
SELECT most_common_vals FROM pg_stats WHERE tablename = 'customers'
SELECT most_common_vals FROM pg_catalog.pg_stats
SELECT stavalues1 FROM pg_statistic
SELECT query FROM pg_stat_activity
SELECT * FROM pg_stat_get_activity(NULL)
SELECT pg_stat_get_backend_activity(1)
SELECT pg_read_file('base/1/1')
SELECT lo_get(1)
SELECT * FROM pg_cursor()
COPY customers TO STDOUT
COPY customers (id, ssn) TO STDOUT
COPY (SELECT ssn FROM customers) TO STDOUT
COPY (SELECT ssn AS x FROM public.customers) TO STDOUT WITH (FORMAT csv)
COPY customers TO '/tmp/holdpoint-mask'
EXPLAIN SELECT id FROM customers WHERE ssn = 'x'
EXPLAIN ANALYZE SELECT ssn FROM customers
EXPLAIN (VERBOSE) SELECT * FROM customers
PREPARE p AS SELECT ssn FROM customers
DECLARE k CURSOR WITH HOLD FOR SELECT ssn FROM customers
SELECT ssn FROM customers FOR UPDATE
SELECT ssn INTO holdpoint_copy FROM customers
CREATE TABLE holdpoint_copy AS SELECT ssn AS x FROM customers
CREATE TEMP TABLE holdpoint_copy AS TABLE customers
CREATE VIEW holdpoint_copy AS SELECT ssn AS x FROM customers
CREATE MATERIALIZED VIEW holdpoint_copy AS SELECT * FROM customers
CREATE FUNCTION holdpoint_peek() RETURNS SETOF text LANGUAGE sql AS 'SELECT ssn FROM customers'
ALTER TABLE customers RENAME COLUMN ssn TO harmless
ALTER TABLE customers RENAME TO harmless
ALTER SCHEMA public RENAME TO harmless
DO 'BEGIN RAISE NOTICE ''%'', (SELECT ssn FROM customers LIMIT 1); END'
INSERT INTO orders (note) SELECT ssn FROM customers
INSERT INTO orders (note) SELECT ssn FROM customers RETURNING note
INSERT INTO customers (id) VALUES (1) ON CONFLICT (id) DO UPDATE SET id = customers.id RETURNING ssn
INSERT INTO customers (id) VALUES (9) RETURNING *
UPDATE orders SET note = ssn FROM customers RETURNING note
UPDATE customers SET id = id RETURNING ssn AS x
UPDATE customers SET id = NULL
DELETE FROM customers WHERE ssn = 'x'
DELETE FROM customers WHERE id < 0 RETURNING customers
MERGE INTO orders o USING customers c ON o.id = c.id WHEN MATCHED THEN UPDATE SET note = c.ssn
SELECT ('x' || ssn)::int FROM customers
SELECT CAST(ssn AS int) FROM customers
SELECT id FROM customers WHERE ('x' || ssn)::int > 0
SELECT id FROM customers WHERE ssn::date < now()
SELECT 1 / (ssn - 777001) FROM customers
SELECT pg_notify('c', ssn) FROM customers
SELECT set_config('a.b', ssn, false) FROM customers
SELECT lo_from_bytea(0, ssn::bytea) FROM customers
SELECT lo_put(1, 0, ssn::bytea) FROM customers
SELECT setval('s', ssn) FROM customers
SELECT currval(ssn) FROM customers
SELECT current_setting(ssn) FROM customers
SELECT to_regclass(ssn) FROM customers
SELECT pg_sleep(ssn) FROM customers
SELECT pg_advisory_lock(ssn) FROM customers
SELECT pg_logical_emit_message(false, 'c', ssn) FROM customers
SELECT dblink('', 'SELECT ssn FROM customers')
SELECT ts_stat('SELECT ssn::tsvector FROM customers')
SELECT ts_rewrite('a', 'SELECT ssn::tsquery, ssn::tsquery FROM customers')
SELECT cursor_to_xml('k', 1, true, false, '') FROM customers
SELECT query_to_xmlschema('SELECT ssn FROM customers', true, false, '')
SELECT has_table_privilege(ssn, 'select') FROM customers
SELECT regexp_matches(ssn, '.*') FROM customers
SELECT x.* FROM customers, regexp_split_to_table(ssn, '-') x
SELECT x.* FROM customers, generate_series(1, ssn) x
SELECT * FROM customers, json_to_record(to_json(customers)) AS x(ssn text)
SELECT * FROM ROWS FROM (unnest((SELECT array_agg(ssn) FROM customers))) AS x
SELECT * FROM JSON_TABLE((SELECT to_jsonb(c) FROM customers c LIMIT 1), '$' COLUMNS (x text PATH '$.ssn')) j
SELECT * FROM XMLTABLE('/r' PASSING (SELECT xmlforest(ssn) FROM customers LIMIT 1) COLUMNS x text PATH 's') j
SELECT id FROM customers LIMIT (SELECT ssn FROM customers LIMIT 1)
SELECT id FROM customers OFFSET (SELECT length(ssn) FROM customers LIMIT 1)
SELECT id FROM customers FETCH FIRST (SELECT ssn FROM customers LIMIT 1) ROWS ONLY
SELECT id FROM customers TABLESAMPLE system ((SELECT ssn FROM customers LIMIT 1))
SELECT sum(ssn) OVER (ORDER BY id ROWS BETWEEN CURRENT ROW AND UNBOUNDED FOLLOWING) FROM customers
SELECT id FROM customers GROUP BY id, GROUPING SETS ((ssn), ())
SELECT grouping(ssn) FROM customers GROUP BY ssn
SELECT (array_agg(c))[1] FROM customers c
SELECT (array_agg(c ORDER BY c.id))[1].ssn FROM customers c
SELECT (SELECT c) FROM customers c
SELECT (SELECT c.*) FROM customers c
SELECT c IS NULL, c = c, c > ROW(1, 'canary', 1, 'a') FROM customers c
SELECT ROW(c.*) < ROW(2, 'x', 1, 'y') FROM customers c
SELECT count(DISTINCT ssn) FROM customers
SELECT count(ssn) FROM customers
SELECT min(ssn), max(ssn) FROM customers
SELECT every(ssn LIKE 'canary%') FROM customers
SELECT ssn LIKE 'canary%' FROM customers
SELECT ssn ~ '^c' AS x FROM customers
SELECT starts_with(ssn, 'c') FROM customers
SELECT ssn BETWEEN 'a' AND 'd' FROM customers
SELECT ssn = ANY (ARRAY['x']) FROM customers
SELECT (ssn, ssn) OVERLAPS (ssn, ssn) FROM customers
SELECT extract(epoch FROM ssn::timestamp) FROM customers
SELECT position('c' IN ssn) FROM customers
SELECT overlay(ssn PLACING '' FROM 1 FOR 0) FROM customers
SELECT trim(ssn) FROM customers
SELECT nullif(ssn, '') FROM customers
SELECT greatest(ssn, '') FROM customers
SELECT ssn AT TIME ZONE 'utc' FROM customers
SELECT ssn IS DOCUMENT FROM customers
SELECT xmlserialize(CONTENT ssn AS text) FROM customers
SELECT json_object('a': ssn) FROM customers
SELECT json_array(ssn) FROM customers
SELECT 'x' AS a, ssn OPERATOR(pg_catalog.||) '' FROM customers
WITH q AS MATERIALIZED (SELECT ssn s FROM customers) TABLE q
WITH q AS (VALUES ((SELECT ssn FROM customers LIMIT 1))) SELECT * FROM q
WITH q AS (INSERT INTO orders (note) SELECT ssn FROM customers RETURNING note) SELECT * FROM q
WITH q AS (UPDATE customers SET id = id RETURNING *) SELECT * FROM q
WITH RECURSIVE t(n) AS (VALUES (1) UNION ALL SELECT n + 1 FROM t, customers WHERE ssn > 'a' AND n < 3) SELECT n FROM t
SELECT ssn FROM ONLY customers UNION DISTINCT TABLE orders
(TABLE customers)
VALUES (1), ((SELECT ssn FROM customers LIMIT 1))
EXPLAIN (ANALYZE, VERBOSE, FORMAT json) SELECT id FROM customers WHERE ssn > 'a'
EXPLAIN (ANALYZE) SELECT * FROM customers ORDER BY ssn
EXPLAIN EXECUTE p
EXECUTE p
FETCH ALL FROM k
MOVE ALL FROM k
DECLARE k SCROLL CURSOR FOR TABLE customers
DECLARE k BINARY CURSOR FOR SELECT * FROM customers
COPY customers (ssn) TO STDOUT WITH (FORMAT binary)
COPY (TABLE customers) TO STDOUT
COPY (SELECT c FROM customers c) TO STDOUT
COPY (DELETE FROM customers RETURNING *) TO STDOUT
COPY customers TO PROGRAM 'cat'
COPY customers FROM STDIN WHERE ssn > 'a'
INSERT INTO orders TABLE customers
INSERT INTO orders (note) VALUES ((SELECT ssn FROM customers LIMIT 1))
INSERT INTO customers (id) VALUES (9) RETURNING customers
INSERT INTO customers SELECT * FROM customers
INSERT INTO customers (id) VALUES (1) ON CONFLICT (ssn) DO NOTHING
UPDATE customers SET name = ssn
UPDATE customers SET (name, id) = (SELECT ssn, id FROM customers c WHERE c.id = customers.id)
UPDATE orders SET id = 1 WHERE note IN (SELECT ssn FROM customers)
DELETE FROM orders USING customers WHERE note = ssn RETURNING ssn
MERGE INTO customers c USING orders o ON c.id = o.id WHEN MATCHED AND c.ssn > 'a' THEN DELETE
CREATE TEMP TABLE customers (ssn text)
CREATE TEMP VIEW customers AS SELECT 1
CREATE RULE r AS ON INSERT TO orders DO ALSO SELECT ssn FROM customers
CREATE TRIGGER t BEFORE UPDATE ON customers FOR EACH ROW EXECUTE FUNCTION f()
CREATE INDEX i ON customers ((ssn::int))
CREATE STATISTICS s ON ssn, ssn FROM customers
CREATE PUBLICATION p FOR TABLE customers
ALTER TABLE customers ALTER COLUMN ssn TYPE int USING ssn::int
ALTER TABLE customers ADD CONSTRAINT c CHECK (ssn < 'a')
ALTER TABLE customers ADD UNIQUE (ssn)
ALTER TABLE customers INHERIT orders
ALTER TABLE customers SET SCHEMA other
ALTER VIEW customers RENAME COLUMN ssn TO harmless
ANALYZE VERBOSE customers (ssn)
VACUUM (VERBOSE) customers
COMMENT ON COLUMN customers.ssn IS 'x'
SELECT histogram_bounds FROM pg_stats_ext_exprs
SELECT * FROM pg_prepared_statements
SELECT * FROM pg_cursors
SELECT * FROM pg_catalog.pg_largeobject
SELECT pg_get_expr(adbin, adrelid), c.ssn || '' FROM pg_attrdef, customers c
SELECT ssn, id FROM customers ORDER BY id IS DISTINCT FROM id, 1
SELECT ssn, id FROM customers ORDER BY id IS NOT DISTINCT FROM id, 1
SELECT * FROM customers ORDER BY id IS DISTINCT FROM id, 2
SELECT ssn, array_agg(id) FROM customers GROUP BY id IS DISTINCT FROM id, 1
SELECT ssn, array_agg(id) FROM customers GROUP BY DISTINCT 1
SELECT ssn, array_agg(id) FROM customers GROUP BY ALL 1
SELECT (('SELECT ssn::tsvector FROM customers'::text).ts_stat).word FROM customers
-- Signs and labels around what is sorted by; functions behind a dot; catalogs with values.
SELECT id, ssn FROM customers ORDER BY - -2
SELECT id, ssn FROM customers ORDER BY -(-2)
SELECT id, ssn FROM customers GROUP BY 1, - -2
SELECT id, ssn FROM customers ORDER BY + - - 2
SELECT id, ssn FROM customers, (SELECT 1 AS "limit") q ORDER BY q.limit, 2
SELECT id, ssn, 1 AS limit FROM customers GROUP BY 1, 2
SELECT (c.hstore)->'ssn' FROM customers c
SELECT c.st_asgeojson FROM customers c
SELECT (NULL::int4).pg_stat_get_activity FROM orders
SELECT b.pg_stat_get_backend_activity FROM generate_series(1, 10) b
SELECT a.attmissingval::text FROM pg_catalog.pg_attribute a
SELECT query FROM public.pg_stat_statements
