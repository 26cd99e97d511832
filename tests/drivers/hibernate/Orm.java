// What Hibernate does before its program does anything, and then the least of that: it
// connects, compares its tables `orm_*` with what is there, makes them, writes and reads one
// row. What each line must say is in tests/it/orms.rs.

import jakarta.persistence.*;
import java.sql.*;
import java.util.*;
import java.util.logging.*;
import org.hibernate.cfg.Configuration;

public class Orm {
    @Entity(name = "Invoice")
    @Table(name = "invoices")
    public static class Invoice {
        @Id int id;
        @Column(columnDefinition = "text") String customer;
    }

    @Entity(name = "Note")
    @Table(name = "orm_notes", indexes = @Index(name = "orm_notes_text", columnList = "text"))
    public static class Note {
        @Id
        @GeneratedValue(strategy = GenerationType.SEQUENCE, generator = "orm_notes_seq")
        @SequenceGenerator(name = "orm_notes_seq", allocationSize = 1)
        Long id;
        @Column(nullable = false) String text;
        java.time.OffsetDateTime at = java.time.OffsetDateTime.now();
    }

    static void say(Object... words) {
        System.out.println(String.join(" ", Arrays.stream(words).map(String::valueOf).toList()));
    }

    static String names(ResultSet rows, String column) throws SQLException {
        var names = new ArrayList<String>();
        while (rows.next()) names.add(rows.getString(column));
        return String.join(" ", names);
    }

    static Configuration configuration(String schema) {
        String place = System.getenv("PGHOST") + ":" + System.getenv("PGPORT");
        return new Configuration()
            .addAnnotatedClass(Invoice.class)
            .addAnnotatedClass(Note.class)
            .setProperty("hibernate.connection.url", "jdbc:postgresql://" + place + "/shop")
            .setProperty("hibernate.connection.username", "agent")
            .setProperty("hibernate.connection.password", System.getenv("PGPASSWORD"))
            .setProperty("hibernate.connection.sslmode", "verify-ca")
            .setProperty("hibernate.connection.sslrootcert", System.getenv("HOLDPOINT_CA"))
            .setProperty("hibernate.hbm2ddl.auto", schema);
    }

    public static void main(String[] args) throws Exception {
        LogManager.getLogManager().reset();
        // Run from source, the classes are in a loader that nobody else asks.
        Thread.currentThread().setContextClassLoader(Orm.class.getClassLoader());
        try (var orm = configuration("none").buildSessionFactory(); var session = orm.openSession()) {
            session.doWork(connection -> {
                var about = connection.getMetaData();
                var kinds = new String[] {"TABLE"};
                say("tables", names(about.getTables(null, "public", "%", kinds), "TABLE_NAME"));
                say("columns", names(about.getColumns(null, null, "invoices", "%"), "COLUMN_NAME"));
                say("key", names(about.getPrimaryKeys(null, null, "invoices"), "COLUMN_NAME"));
            });
            var count = "select count(*) from Invoice";
            say("rows", session.createQuery(count, Long.class).getSingleResult());
            var transaction = session.beginTransaction();
            say("rows", session.createQuery(count, Long.class).getSingleResult());
            transaction.commit();
        }
        configuration("update").buildSessionFactory().close();
        try (var orm = configuration("validate").buildSessionFactory()) {
            var note = new Note();
            note.text = "made";
            orm.inTransaction(session -> session.persist(note));
            orm.inTransaction(session -> session.find(Note.class, note.id).text = "changed");
            var found = orm.fromTransaction(session -> session.find(Note.class, note.id));
            orm.inTransaction(session -> session.remove(session.find(Note.class, note.id)));
            var left = orm.fromTransaction(
                session -> session.createQuery("select count(*) from Note", Long.class).getSingleResult());
            say("note", found.id, found.text, left);
        }
    }
}
