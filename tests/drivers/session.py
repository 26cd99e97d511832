"""One session as a Python program would have it: a read, then an UPDATE that waits.

Usage: session.py psycopg|asyncpg SQL. Prints rows, notices and the update's count.
"""

import asyncio
import os
import sys


def psycopg_session(sql):
    import psycopg

    with psycopg.connect(
        host=os.environ["PGHOST"],
        port=os.environ["PGPORT"],
        user="agent",
        dbname="shop",
        password=os.environ["PGPASSWORD"],
        sslmode="verify-full",
        sslrootcert=os.environ["HOLDPOINT_CA"],
        autocommit=True,
    ) as connection:
        connection.add_notice_handler(lambda notice: print("notice", notice.message_primary))
        rows = connection.execute("SELECT id FROM invoices WHERE id > %s", (0,)).fetchall()
        print("rows", len(rows))
        print("updated", connection.execute(sql).rowcount)


async def asyncpg_session(sql):
    import ssl

    import asyncpg

    context = ssl.create_default_context(cafile=os.environ["HOLDPOINT_CA"])
    connection = await asyncpg.connect(
        host=os.environ["PGHOST"],
        port=int(os.environ["PGPORT"]),
        user="agent",
        database="shop",
        password=os.environ["PGPASSWORD"],
        ssl=context,
    )
    connection.add_log_listener(lambda _, message: print("notice", message.message))
    rows = await connection.fetch("SELECT id FROM invoices WHERE id > $1", 0)
    print("rows", len(rows))
    status = await connection.execute(sql)
    print("updated", status.removeprefix("UPDATE "))
    await connection.close()


if __name__ == "__main__":
    driver, sql = sys.argv[1:]
    if driver == "psycopg":
        psycopg_session(sql)
    else:
        asyncio.run(asyncpg_session(sql))
