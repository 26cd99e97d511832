-- What a person at psql does in a day. What each line must say is in tests/it/drivers.rs.
SELECT 'rows ' || count(*) FROM invoices;
PREPARE add (int) AS SELECT $1 + 10 AS sum;
EXECUTE add(2) \gset first_
EXECUTE add(5) \gset second_
SELECT 'prepared ' || :'first_sum' || ' ' || :'second_sum';
BEGIN;
INSERT INTO scratch VALUES (1);
COMMIT;
BEGIN;
INSERT INTO scratch VALUES (2);
ROLLBACK;
SELECT 'scratch ' || count(*) FROM scratch;
BEGIN;
SELECT 1 / 0;
\echo error :LAST_ERROR_SQLSTATE
ROLLBACK;
SELECT 'large ' || sum(length(x)) FROM (SELECT repeat('x', 1000) AS x FROM generate_series(1, 5000)) AS l;
UPDATE invoices SET amount = amount + 5 WHERE id = 1;
\echo held :ROW_COUNT
DELETE FROM victims;
\echo denied :LAST_ERROR_SQLSTATE
BEGIN;
DELETE FROM victims;
\echo denied inside :LAST_ERROR_SQLSTATE
ROLLBACK;
BEGIN;
INSERT INTO scratch VALUES (3);
DELETE FROM victims;
COMMIT;
SELECT 'given up ' || count(*) FROM scratch;
SELECT 'usable ' || 7;
SELECT 'binary ' || encode('\x00ff7f'::bytea, 'hex') || ' ' || 9007199254740993;
