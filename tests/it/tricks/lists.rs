//! The tricks: each leads the gateway to take a write for something else.

use super::*;

pub(super) fn tricks() -> Vec<(&'static str, Vec<Step>)> {
    let prepared = || vec![parse("s", WRITE), sync()];
    // One more or one less answer than the gateway counts, and `t`'s is taken for `s`'s.
    let shift = || {
        vec![
            vec![parse("s", "SELECT 1"), sync()],
            vec![parse("t", "SELECT 1"), sync()],
            run("s"),
        ]
    };
    let copy = || {
        vec![
            parse("", "COPY scratch FROM STDIN"),
            bind("", ""),
            execute(""),
        ]
    };
    // An answer that is counted twice, or not, and a PREPARE that fails is taken for one that
    // did not.
    let missed = |steps: Vec<Step>| {
        let then = ["PREPARE s AS SELECT 1", "SELECT 1", "EXECUTE s"];
        let then = then.iter().map(|sql| vec![q(sql)]).collect();
        [vec![prepared()], steps, then].concat()
    };
    let shifted = |first: Step| [vec![prepared(), first], shift()].concat();
    vec![
        (
            "a Query that the server skips behind a Parse that fails",
            shifted(vec![parse("", "SELEC"), q("SELECT 1"), sync()]),
        ),
        (
            "two Queries that the server skips",
            shifted(vec![
                parse("", "SELEC"),
                q("SELECT 1"),
                q("SELECT 2"),
                sync(),
            ]),
        ),
        (
            "a Query that the server skips behind a Bind that fails",
            shifted(vec![bind("", "absent"), q("SELECT 1"), sync()]),
        ),
        (
            "a Query that the server skips behind a Flush",
            shifted(vec![parse("", "SELEC"), flush(), q("SELECT 1"), sync()]),
        ),
        (
            "bytes behind a Flush, which the server fails",
            shifted(vec![message(b'H', b"x"), q("SELECT 1"), sync()]),
        ),
        (
            "bytes behind a Sync, which the server fails",
            shifted(vec![parse("", "SELECT 1"), message(b'S', b"x"), sync()]),
        ),
        (
            "a Query that a COPY takes for data",
            shifted(vec![q("COPY scratch FROM STDIN"), q("SELECT 1")]),
        ),
        (
            "a unit that a COPY takes for data",
            shifted(vec![
                q("COPY scratch FROM STDIN"),
                parse("u", "SELECT 1"),
                sync(),
            ]),
        ),
        (
            "a Query that a COPY of the extended protocol takes for data",
            shifted(vec![
                parse("", "COPY scratch FROM STDIN"),
                bind("", ""),
                execute(""),
                sync(),
                q("SELECT 1"),
                sync(),
            ]),
        ),
        (
            "a COPY that fails before its Sync was read",
            shifted(vec![
                parse("", "COPY scratch FROM STDIN"),
                bind("", ""),
                execute(""),
                copy_data("no number\n"),
                sync(),
                sync(),
            ]),
        ),
        (
            "a name that is parsed again where the server has it already",
            vec![prepared(), vec![parse("s", "SELECT 1"), sync()], run("s")],
        ),
        (
            "a Parse that is skipped",
            vec![
                prepared(),
                vec![
                    parse("", "SELEC"),
                    close("Ss"),
                    parse("s", "SELECT 1"),
                    sync(),
                ],
                run("s"),
            ],
        ),
        (
            "a Close that is skipped",
            vec![
                vec![parse("s", "SELECT 1"), sync()],
                vec![close("Ss"), parse("s", WRITE), sync()],
                vec![parse("", "SELEC"), close("Ss"), sync()],
                run("s"),
            ],
        ),
        (
            "the unnamed statement, parsed anew in the same pipeline",
            vec![vec![
                parse("", "SELECT 1"),
                bind("p", ""),
                parse("", WRITE),
                bind("", ""),
                execute(""),
                sync(),
            ]],
        ),
        (
            "a read behind a Bind of the write",
            vec![
                prepared(),
                vec![
                    parse("r", "SELECT 1"),
                    bind("p", "s"),
                    bind("q", "r"),
                    execute("q"),
                    execute("p"),
                    sync(),
                ],
            ],
        ),
        (
            "EXECUTE of a name that the protocol prepared",
            vec![prepared(), vec![q("EXECUTE s")]],
        ),
        (
            "EXECUTE of a name that a refused PREPARE in the same text was to take",
            vec![prepared(), vec![q("PREPARE s AS SELECT 1; EXECUTE s")]],
        ),
        (
            "DEALLOCATE that is rolled back, which it never is",
            vec![
                vec![parse("s", "SELECT 1"), sync()],
                vec![q("BEGIN"), q("DEALLOCATE s"), q("ROLLBACK")],
                prepared(),
                run("s"),
            ],
        ),
        (
            "DISCARD between Parse and Bind",
            vec![
                vec![parse("s", "SELECT 1"), sync()],
                vec![q("DISCARD ALL"), parse("s", WRITE), sync()],
                run("s"),
            ],
        ),
        (
            "a cursor of the name of a portal",
            vec![
                vec![q("BEGIN")],
                vec![q("DECLARE k CURSOR FOR SELECT 1")],
                vec![q("CLOSE k"), parse("s", WRITE), bind("k", "s"), sync()],
                vec![execute("k"), sync()],
            ],
        ),
        (
            "long names that the server cuts",
            vec![
                vec![parse(&format!("{}a", "n".repeat(63)), "SELECT 1"), sync()],
                vec![
                    close(&format!("S{}b", "n".repeat(63))),
                    parse(&format!("{}c", "n".repeat(63)), WRITE),
                    sync(),
                ],
                run(&format!("{}d", "n".repeat(63))),
            ],
        ),
        (
            "a write behind a held read in one segment",
            vec![vec![q("SELECT 1"), q("SELECT 1; DELETE FROM victims")]],
        ),
        (
            "EXECUTE of a name that later messages of the unit give to a read",
            vec![
                prepared(),
                vec![
                    parse("", "EXECUTE s"),
                    bind("", ""),
                    execute(""),
                    close("Ss"),
                    parse("s", "SELECT 1"),
                    sync(),
                ],
            ],
        ),
        (
            "what SQL prepared, run from a portal after its name was given away",
            vec![
                vec![q("PREPARE s AS SELECT 1")],
                vec![
                    bind("p", "s"),
                    close("Ss"),
                    parse("s", WRITE),
                    execute("p"),
                    bind("", "s"),
                    execute(""),
                    sync(),
                ],
            ],
        ),
        (
            "the same in a transaction, a message at a time",
            vec![
                vec![q("BEGIN")],
                vec![q("PREPARE s AS SELECT 1")],
                vec![bind("p", "s"), sync()],
                vec![close("Ss"), parse("s", WRITE), sync()],
                vec![execute("p"), sync()],
                vec![q("EXECUTE s")],
                vec![q("COMMIT")],
            ],
        ),
        (
            "a Sync that a COPY ignores",
            missed(vec![
                vec![q("COPY scratch FROM STDIN"), sync()],
                vec![message(b'c', b"")],
            ]),
        ),
        (
            "two Syncs that a COPY ignores",
            missed(vec![
                [copy(), vec![sync(), sync()]].concat(),
                vec![message(b'c', b""), sync()],
            ]),
        ),
        (
            "a Sync that a COPY ignores, and a Query that the server skips once it failed",
            missed(vec![
                [copy(), vec![sync()]].concat(),
                vec![copy_data("no number\n"), message(b'c', b"")],
                vec![q("SELECT 42"), sync()],
            ]),
        ),
        (
            "a Sync amid the data of a COPY that has failed",
            missed(vec![
                vec![q("COPY scratch FROM STDIN")],
                vec![copy_data("no number\n"), sync(), message(b'c', b"")],
            ]),
        ),
        (
            "a COPY that EXECUTE runs, and what comes behind it",
            missed(vec![
                vec![parse("c", "COPY scratch FROM STDIN"), sync()],
                vec![q("EXECUTE c"), q("SELECT 1"), sync()],
                vec![message(b'c', b""), sync()],
            ]),
        ),
        (
            "a COMMIT that the gateway turns into a ROLLBACK, and a write behind it",
            vec![
                vec![parse("s", WRITE), sync(), q("BEGIN"), q(WRITE)],
                vec![
                    parse("c", "COMMIT"),
                    bind("", "c"),
                    execute(""),
                    sync(),
                    bind("", "s"),
                    execute(""),
                    sync(),
                ],
                vec![
                    q("BEGIN"),
                    q(WRITE),
                    parse("c", "COMMIT"),
                    bind("", "c"),
                    execute(""),
                    sync(),
                    parse("s", "SELECT 1"),
                    sync(),
                ],
                vec![parse("t", "SELECT 1"), sync()],
                run("s"),
            ],
        ),
    ]
}

/// Ways past what is foretold: the same burst is sent until the gateway need not ask its
/// plugin of it any more, and then it means something else, or comes in other company.
pub(super) fn foretold() -> Vec<(&'static str, Vec<Step>)> {
    let again = |step: Step| vec![step.clone(), step.clone(), step.clone(), step];
    let known = || {
        let prepared = vec![vec![parse("s", "SELECT 1"), parse("t", WRITE), sync()]];
        [prepared, again(run("s"))].concat()
    };
    let whole = |sql: &str| [vec![parse("", sql)], run("")].concat();
    let divide = |by: &str| {
        let value = [&[0, 0, 0, by.len() as u8][..], by.as_bytes()].concat();
        let body = [b"\0d\0\0\0\0\x01", &value[..], b"\0\0"].concat();
        vec![message(b'B', &body), execute(""), sync()]
    };
    let then = |before: Vec<Step>, steps: Vec<Step>| [before, steps].concat();
    let anew = vec![close("Ss"), parse("s", WRITE), sync()];
    vec![
        (
            "a known name that stands for a write now",
            then(known(), vec![anew.clone(), run("s")]),
        ),
        (
            "a known name that stands for a write in the same burst",
            then(known(), vec![[anew.clone(), run("s")].concat(), run("s")]),
        ),
        (
            "a known name behind a name that changes and is not waited for",
            then(known(), vec![[run("s"), anew, run("s")].concat()]),
        ),
        (
            "a known name that SQL prepares anew",
            then(
                known(),
                vec![
                    vec![q(&format!("DEALLOCATE s; PREPARE s AS {WRITE}"))],
                    run("s"),
                ],
            ),
        ),
        (
            "a known name after DISCARD ALL",
            then(
                known(),
                vec![
                    vec![q("DISCARD ALL")],
                    vec![parse("s", WRITE), sync()],
                    run("s"),
                ],
            ),
        ),
        (
            "a known burst with another one behind it",
            then(known(), vec![[run("s"), run("t")].concat()]),
        ),
        (
            "a known burst with another portal in it",
            then(
                known(),
                vec![vec![
                    bind("p", "t"),
                    bind("", "s"),
                    execute(""),
                    execute("p"),
                    sync(),
                ]],
            ),
        ),
        (
            "the statement without a name, parsed anew",
            then(
                again(whole("SELECT 1")),
                vec![vec![parse("", WRITE), sync()], run("")],
            ),
        ),
        (
            "the statement without a name, between two known bursts",
            then(
                again(whole("SELECT 1")),
                vec![
                    vec![parse("", WRITE), sync()],
                    whole("SELECT 1"),
                    vec![parse("", WRITE), sync()],
                    run(""),
                ],
            ),
        ),
        (
            "numbers that are no numbers",
            then(
                vec![
                    vec![q("SELECT 1 WHERE 1 = 10")],
                    vec![q("SELECT 1 WHERE 1 = 11")],
                    vec![q("SELECT 1 WHERE 1 = 12")],
                    vec![q("SELECT 1 WHERE 1 = 13")],
                ],
                vec![
                    vec![q(&format!("SELECT 1 WHERE 1 = 14; {WRITE}"))],
                    vec![q(&format!("SELECT 1 WHERE 1 = 1/**/;{WRITE} WHERE 1 = 1"))],
                    vec![message(
                        b'Q',
                        format!("SELECT 1 WHERE 1 = 1\0{WRITE}\0").as_bytes(),
                    )],
                ],
            ),
        ),
        (
            "a known burst that fails at the server",
            [
                vec![vec![
                    parse("d", "SELECT 1 / $1::int"),
                    parse("t", WRITE),
                    sync(),
                ]],
                again(divide("1")),
                vec![
                    divide("0"),
                    divide("1"),
                    [divide("0"), run("t")].concat(),
                    run("t"),
                ],
            ]
            .concat(),
        ),
    ]
}
