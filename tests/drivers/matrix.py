"""What a Python program does in a day, through one connection.

Usage: matrix.py psycopg|pipeline|asyncpg|large|too-large. What each line must say is in
tests/it/drivers.rs and tests/it/large.rs.
"""

import asyncio
import os
import sys

HOST, PORT, PASSWORD, CA = (
    os.environ[name] for name in ("PGHOST", "PGPORT", "PGPASSWORD", "HOLDPOINT_CA")
)
LARGE = "SELECT repeat('x', 1000) FROM generate_series(1, 5000)"
HELD = "UPDATE invoices SET amount = amount + {} WHERE id = 1"
DENIED = "DELETE FROM victims"
BINARY = (b"\x00\xff\x7f", 9007199254740993)


def psycopg_connection():
    import psycopg

    return psycopg.connect(
        host=HOST,
        port=PORT,
        user="agent",
        dbname="shop",
        password=PASSWORD,
        sslmode="verify-full",
        sslrootcert=CA,
        autocommit=True,
        prepare_threshold=0,
    )


def psycopg_session():
    import psycopg

    with psycopg_connection() as connection:
        value = lambda *query: connection.execute(*query).fetchone()[0]
        print("rows", len(connection.execute("SELECT id FROM invoices").fetchall()))
        add = "SELECT %s::int + 10"
        print("prepared", value(add, (2,)), value(add, (5,)))
        with connection.transaction():
            connection.execute("INSERT INTO scratch VALUES (%s)", (1,))
        with connection.transaction(force_rollback=True):
            connection.execute("INSERT INTO scratch VALUES (%s)", (2,))
        print("scratch", value("SELECT count(*) FROM scratch"))
        try:
            with connection.transaction():
                connection.execute("SELECT 1 / 0")
        except psycopg.Error as error:
            print("error", error.sqlstate)
        print("large", sum(len(row[0]) for row in connection.execute(LARGE)))
        print("held", connection.execute(HELD.format("%s"), (5,)).rowcount)
        try:
            connection.execute(DENIED)
        except psycopg.Error as error:
            print("denied", error.sqlstate)
        try:
            with connection.transaction():
                connection.execute(DENIED)
        except psycopg.Error as error:
            print("denied inside", error.sqlstate)
        connection.autocommit = False
        connection.execute("INSERT INTO scratch VALUES (3)")
        try:
            connection.execute(DENIED)
        except psycopg.Error:
            connection.commit()
        connection.autocommit = True
        print("given up", value("SELECT count(*) FROM scratch"))
        print("usable", value("SELECT 7"))
        cursor = connection.cursor(binary=True)
        data, number = cursor.execute("SELECT %b::bytea, %b::int8", BINARY).fetchone()
        print("binary", data.hex(), number)


def pipeline_session():
    import psycopg

    with psycopg_connection() as connection:
        with connection.pipeline():
            rows = connection.execute("SELECT id FROM invoices")
            added = [connection.execute("SELECT %s::int + 10", (n,)) for n in (2, 5)]
            print("rows", len(rows.fetchall()))
            print("prepared", *(cursor.fetchone()[0] for cursor in added))
            with connection.transaction():
                connection.execute("INSERT INTO scratch VALUES (1)")
            with connection.transaction(force_rollback=True):
                connection.execute("INSERT INTO scratch VALUES (2)")
            print("scratch", connection.execute("SELECT count(*) FROM scratch").fetchone()[0])
        try:
            with connection.pipeline(), connection.transaction():
                connection.execute("SELECT 1")
                connection.execute("SELECT 1 / 0")
                connection.execute("SELECT 2")
        except psycopg.Error as error:
            print("error", error.sqlstate)
        with connection.pipeline():
            large = connection.execute(LARGE)
            print("large", sum(len(row[0]) for row in large))
            held = connection.execute(HELD.format("%s"), (5,))
            after = connection.execute("SELECT 6")
            after.fetchone()
            print("held", held.rowcount)
        try:
            with connection.pipeline() as pipeline:
                connection.execute("SELECT 1")
                connection.execute(DENIED)
                pipeline.sync()
        except psycopg.Error as error:
            print("denied", error.sqlstate)
        try:
            with connection.pipeline(), connection.transaction():
                connection.execute("SELECT 1")
                connection.execute(DENIED)
        except psycopg.Error as error:
            print("denied inside", error.sqlstate)
        connection.execute("BEGIN")
        connection.execute("INSERT INTO scratch VALUES (3)")
        try:
            with connection.pipeline():
                connection.execute(DENIED)
        except psycopg.Error:
            connection.execute("COMMIT")
        count = connection.execute("SELECT count(*) FROM scratch").fetchone()[0]
        print("given up", count)
        print("usable", connection.execute("SELECT 7").fetchone()[0])
        with connection.pipeline():
            cursor = connection.cursor(binary=True)
            data, number = cursor.execute("SELECT %b::bytea, %b::int8", BINARY).fetchone()
            print("binary", data.hex(), number)


async def asyncpg_session():
    import ssl

    import asyncpg

    connection = await asyncpg.connect(
        host=HOST,
        port=int(PORT),
        user="agent",
        database="shop",
        password=PASSWORD,
        ssl=ssl.create_default_context(cafile=CA),
    )
    print("rows", len(await connection.fetch("SELECT id FROM invoices")))
    add = await connection.prepare("SELECT $1::int + 10")
    print("prepared", await add.fetchval(2), await add.fetchval(5))
    async with connection.transaction():
        await connection.execute("INSERT INTO scratch VALUES ($1)", 1)
    try:
        async with connection.transaction():
            await connection.execute("INSERT INTO scratch VALUES ($1)", 2)
            raise KeyError
    except KeyError:
        pass
    print("scratch", await connection.fetchval("SELECT count(*) FROM scratch"))
    try:
        async with connection.transaction():
            await connection.execute("SELECT 1 / 0")
    except asyncpg.PostgresError as error:
        print("error", error.sqlstate)
    print("large", sum(len(row[0]) for row in await connection.fetch(LARGE)))
    status = await connection.execute(HELD.format("$1"), 5)
    print("held", status.removeprefix("UPDATE "))
    try:
        await connection.execute(DENIED)
    except asyncpg.PostgresError as error:
        print("denied", error.sqlstate)
    try:
        async with connection.transaction():
            await connection.execute(DENIED)
    except asyncpg.PostgresError as error:
        print("denied inside", error.sqlstate)
    transaction = connection.transaction()
    await transaction.start()
    await connection.execute("INSERT INTO scratch VALUES ($1)", 3)
    try:
        await connection.execute(DENIED)
    except asyncpg.PostgresError:
        await transaction.commit()
    print("given up", await connection.fetchval("SELECT count(*) FROM scratch"))
    print("usable", await connection.fetchval("SELECT 7"))
    data, number = await connection.fetchrow("SELECT $1::bytea, $2::int8", *BINARY)
    print("binary", data.hex(), number)
    await connection.close()


def large_session():
    """Commands near the gateway's limit of 16 MiB; see tests/it/large.rs."""
    import psycopg

    size = (16 << 20) - 4096
    stored = "SELECT count(*), sum(length(x)), sum(length(b)) FROM large"
    with psycopg_connection() as connection:
        insert = "INSERT INTO large (x) VALUES (%s)"
        connection.execute(insert, ("t" * size,))
        connection.execute("INSERT INTO large (b) VALUES (%b)", (b"\0" * size,))
        print("parameters", *connection.execute(stored).fetchone())
        with connection.cursor() as cursor:
            with cursor.copy("COPY large (x) FROM STDIN") as copy:
                for _ in range(3):
                    copy.write_row(("c" * size,))
            with cursor.copy("COPY (SELECT x FROM large) TO STDOUT") as copy:
                print("copied", sum(len(part) for part in copy) > 4 * size)
        # In a text of its own, by way of the simple protocol.
        simple = psycopg.ClientCursor(connection)
        try:
            simple.execute(insert, ("l" * size,))
            print("literal", simple.rowcount)
        except psycopg.Error as error:
            print("literal", error.sqlstate, error.diag.message_detail)
        print("usable", connection.execute("SELECT 7").fetchone()[0])


def too_large_session():
    """Commands past that limit: the session ends, and says why to who is still sending."""
    import psycopg

    for size in (17 << 20, 48 << 20):
        with psycopg_connection() as connection:
            try:
                connection.execute("SELECT length(%s)", ("t" * size,))
            except psycopg.Error as error:
                said = str(error).splitlines()[0]
                print("too large", error.sqlstate, connection.broken, said)


SESSIONS = {
    "psycopg": psycopg_session,
    "pipeline": pipeline_session,
    "asyncpg": lambda: asyncio.run(asyncpg_session()),
    "large": large_session,
    "too-large": too_large_session,
}

if __name__ == "__main__":
    SESSIONS[sys.argv[1]]()
