"""What an ORM of Python does before its program does anything, and then the least of that.

Usage: orms.py sqlalchemy|django. Each connects, looks at what is there, makes its tables
`orm_*` by a migration, and writes and reads one row. What each line must say is in
tests/it/orms.rs.
"""

import os
import sys

HOST, PORT, PASSWORD, CA = (
    os.environ[name] for name in ("PGHOST", "PGPORT", "PGPASSWORD", "HOLDPOINT_CA")
)


def sqlalchemy_session():
    import sqlalchemy as sa
    from alembic.autogenerate import produce_migrations
    from alembic.migration import MigrationContext
    from alembic.operations import Operations
    from sqlalchemy.orm import Session, declarative_base

    engine = sa.create_engine(
        f"postgresql+psycopg://agent@{HOST}:{PORT}/shop",
        connect_args={"password": PASSWORD, "sslmode": "verify-full", "sslrootcert": CA},
        pool_pre_ping=True,
    )
    inspector = sa.inspect(engine)
    print("tables", *sorted(inspector.get_table_names()))
    tables = sa.MetaData()
    tables.reflect(engine)
    invoices = tables.tables["invoices"]
    print("columns", *invoices.columns.keys())
    print("key", *(column.name for column in invoices.primary_key))
    for look in (
        inspector.get_view_names,
        inspector.get_sequence_names,
        inspector.get_schema_names,
        inspector.get_enums,
        inspector.get_domains,
    ):
        look()
    for look in (
        inspector.get_multi_indexes,
        inspector.get_multi_foreign_keys,
        inspector.get_multi_check_constraints,
        inspector.get_multi_unique_constraints,
        inspector.get_multi_table_comment,
    ):
        look()
    for _ in range(2):
        with engine.connect() as connection:
            count = sa.select(sa.func.count()).select_from(invoices)
            print("rows", connection.execute(count).scalar())

    base = declarative_base()

    class Note(base):
        __tablename__ = "orm_notes"
        id = sa.Column(sa.Integer, primary_key=True)
        text = sa.Column(sa.Text, nullable=False, index=True)
        at = sa.Column(sa.DateTime(timezone=True), server_default=sa.func.now())

    # As `alembic revision --autogenerate` and `alembic upgrade head` do it.
    ours = lambda thing, name, kind, *_: kind != "table" or name.startswith("orm_")
    options = {"version_table": "orm_version", "include_object": ours}
    with engine.begin() as connection:
        context = MigrationContext.configure(connection, opts=options)
        made = produce_migrations(context, base.metadata)
        operations = Operations(context)
        for step in made.upgrade_ops.ops:
            for inner in getattr(step, "ops", [step]):
                operations.invoke(inner)
        context._ensure_version_table()
        assert context.get_current_revision() is None
    with engine.begin() as connection:
        context = MigrationContext.configure(connection, opts=options)
        assert not produce_migrations(context, base.metadata).upgrade_ops.ops
    with Session(engine) as session:
        note = Note(text="made")
        session.add(note)
        session.commit()
        note.text = "changed"
        session.commit()
        found = session.get(Note, note.id)
        number, text = found.id, found.text
        session.delete(found)
        session.commit()
        left = session.scalar(sa.select(sa.func.count()).select_from(Note))
        print("note", number, text, left)
    engine.dispose()


def django_session():
    import django
    from django.conf import settings

    settings.configure(
        DATABASES={
            "default": {
                "ENGINE": "django.db.backends.postgresql",
                "HOST": HOST,
                "PORT": PORT,
                "USER": "agent",
                "NAME": "shop",
                "PASSWORD": PASSWORD,
                "CONN_HEALTH_CHECKS": True,
                "OPTIONS": {"sslmode": "verify-full", "sslrootcert": CA},
            }
        },
        DEFAULT_AUTO_FIELD="django.db.models.BigAutoField",
        TIME_ZONE="Europe/Vienna",
        USE_TZ=True,
    )
    django.setup()
    from django.db import close_old_connections, connection, migrations, models, transaction
    from django.db.migrations.executor import MigrationExecutor
    from django.db.migrations.recorder import MigrationRecorder

    class Invoice(models.Model):
        customer = models.TextField()

        class Meta:
            app_label = "shop"
            db_table = "invoices"
            managed = False

    introspection = connection.introspection
    print("tables", *sorted(introspection.table_names()))
    with connection.cursor() as cursor:
        columns = introspection.get_table_description(cursor, "invoices")
        print("columns", *(column.name for column in columns))
        print("key", introspection.get_primary_key_column(cursor, "invoices"))
        introspection.get_constraints(cursor, "invoices")
        introspection.get_relations(cursor, "invoices")
        introspection.get_sequences(cursor, "invoices")
    print("rows", Invoice.objects.count())
    close_old_connections()
    with transaction.atomic(), transaction.atomic():
        # By way of a server-side cursor.
        print("rows", len(list(Invoice.objects.iterator(chunk_size=2))))

    # As `manage.py migrate` does it, with tables of our names.
    MigrationRecorder.Migration._meta.db_table = "orm_migrations"

    class Made(migrations.Migration):
        operations = [
            migrations.CreateModel(
                "Note",
                [
                    ("id", models.BigAutoField(primary_key=True)),
                    ("text", models.TextField(db_index=True)),
                    ("at", models.DateTimeField(auto_now_add=True)),
                ],
                options={"db_table": "orm_notes"},
            )
        ]

    executor = MigrationExecutor(connection)
    made = Made("0001_made", "notes")
    executor.loader.graph.add_node(("notes", "0001_made"), made)
    executor.loader.graph.node_map[("notes", "0001_made")]
    executor.loader.disk_migrations[("notes", "0001_made")] = made
    executor.migrate([("notes", "0001_made")])

    class Note(models.Model):
        text = models.TextField(db_index=True)
        at = models.DateTimeField(auto_now_add=True)

        class Meta:
            app_label = "notes"
            db_table = "orm_notes"

    note = Note.objects.create(text="made")
    note.text = "changed"
    note.save()
    found = Note.objects.get(pk=note.pk)
    number, text = found.pk, found.text
    with transaction.atomic():
        found.delete()
    print("note", number, text, Note.objects.count())
    connection.close()


SESSIONS = {"sqlalchemy": sqlalchemy_session, "django": django_session}

if __name__ == "__main__":
    SESSIONS[sys.argv[1]]()
