// What a Java program does in a day, through one connection.
//
// Usage: java -cp postgresql.jar Matrix.java. What each line must say is in
// tests/it/drivers.rs.

import java.sql.*;
import java.util.HexFormat;
import java.util.Properties;

public class Matrix {
    static Connection connection;

    interface Work {
        void run() throws SQLException;
    }

    static String value(String sql, Object... values) throws SQLException {
        try (var statement = connection.prepareStatement(sql)) {
            for (int i = 0; i < values.length; i++) statement.setObject(i + 1, values[i]);
            try (var rows = statement.executeQuery()) {
                rows.next();
                return rows.getString(1);
            }
        }
    }

    static int update(String sql, Object... values) throws SQLException {
        try (var statement = connection.prepareStatement(sql)) {
            for (int i = 0; i < values.length; i++) statement.setObject(i + 1, values[i]);
            return statement.executeUpdate();
        }
    }

    static String failing(Work work) {
        try {
            work.run();
            return "none";
        } catch (SQLException error) {
            return error.getSQLState();
        }
    }

    static void say(Object... words) {
        var line = new StringBuilder();
        for (var word : words) line.append(line.isEmpty() ? "" : " ").append(word);
        System.out.println(line);
    }

    public static void main(String[] args) throws SQLException {
        var environment = System.getenv();
        var settings = new Properties();
        settings.setProperty("user", "agent");
        settings.setProperty("password", environment.get("PGPASSWORD"));
        settings.setProperty("sslmode", "verify-full");
        settings.setProperty("sslrootcert", environment.get("HOLDPOINT_CA"));
        // Prepared by name, and in binary, from the first time on.
        settings.setProperty("prepareThreshold", "-1");
        var url = "jdbc:postgresql://" + environment.get("PGHOST") + ":" + environment.get("PGPORT") + "/shop";
        connection = DriverManager.getConnection(url, settings);

        try (var rows = connection.createStatement().executeQuery("SELECT id FROM invoices")) {
            int count = 0;
            while (rows.next()) count++;
            say("rows", count);
        }
        try (var add = connection.prepareStatement("SELECT ?::int + 10")) {
            var sums = new int[2];
            for (int i = 0; i < 2; i++) {
                add.setInt(1, i == 0 ? 2 : 5);
                var rows = add.executeQuery();
                rows.next();
                sums[i] = rows.getInt(1);
            }
            say("prepared", sums[0], sums[1]);
        }
        connection.setAutoCommit(false);
        update("INSERT INTO scratch VALUES (?)", 1);
        connection.commit();
        update("INSERT INTO scratch VALUES (?)", 2);
        connection.rollback();
        say("scratch", value("SELECT count(*) FROM scratch"));
        connection.commit();
        say("error", failing(() -> value("SELECT 1 / 0")));
        connection.rollback();
        connection.setAutoCommit(true);
        long large = 0;
        try (var rows = connection.createStatement()
                .executeQuery("SELECT repeat('x', 1000) FROM generate_series(1, 5000)")) {
            while (rows.next()) large += rows.getString(1).length();
        }
        say("large", large);
        say("held", update("UPDATE invoices SET amount = amount + ? WHERE id = 1", 5));
        say("denied", failing(() -> update("DELETE FROM victims")));
        connection.setAutoCommit(false);
        say("denied inside", failing(() -> update("DELETE FROM victims")));
        connection.rollback();
        update("INSERT INTO scratch VALUES (?)", 3);
        failing(() -> update("DELETE FROM victims"));
        connection.commit();
        connection.setAutoCommit(true);
        say("given up", value("SELECT count(*) FROM scratch"));
        say("usable", value("SELECT 7"));
        try (var statement = connection.prepareStatement("SELECT ?::bytea, ?::int8")) {
            statement.setBytes(1, HexFormat.of().parseHex("00ff7f"));
            statement.setLong(2, 9007199254740993L);
            var rows = statement.executeQuery();
            rows.next();
            say("binary", HexFormat.of().formatHex(rows.getBytes(1)), rows.getLong(2));
        }
        connection.close();
    }
}
