//! Lines of every kind.

use super::*;

fn event(stage: Stage, op: Op, sector: u64, sectors: u32) -> Event {
    let record = Record {
        time_us: Some(1_000_002),
        op,
        offset_bytes: sector * 512,
        size_bytes: sectors * 512,
        client: 697,
    };
    Event { record, stage, time: 1_000_002_345 }
}

#[test]
fn the_end_of_a_line_after_its_time_decides() {
    use Problem::{Fields, Number, Operation, PastEnd, ZeroSize};
    let event = |stage, op, sector, sectors| Ok(Some(event(stage, op, sector, sectors)));
    let cases = [
        ("Q   W 223490 + 8 [kjournald]", event(Stage::Queue, Op::Write, 223_490, 8)),
        ("D  RA 0 + 256 [a b]", event(Stage::Issue, Op::Read, 0, 256)),
        ("C  RS 16 + 8 [0]", event(Stage::Complete, Op::Read, 16, 8)),
        ("C  RS 16 + 8 (   12345) [0]", event(Stage::Complete, Op::Read, 16, 8)),
        ("Q WSM 16 + 8 [x]", event(Stage::Queue, Op::Write, 16, 8)),
        ("Q FWFS 16 + 8 [jbd2/sda1-8]", event(Stage::Queue, Op::Write, 16, 8)),
        ("Q FWS [jbd2/sda1-8]", Ok(None)),
        ("C FWS 0 [0]", Ok(None)),
        ("Q   F 16 + 8 [x]", Ok(None)),
        ("Q   D 16 + 8 [fstrim]", Ok(None)),
        ("Q   N [(null)]", Ok(None)),
        ("D   R 36 (85 08 0e 00 ..) [smartd]", Ok(None)),
        ("C   R (85 08 0e 00 ..) [0]", Ok(None)),
        ("A   W 223490 + 8 <- (8,1) 223427", Ok(None)),
        ("G   W 223490 + 8 [kjournald]", Ok(None)),
        ("UT   N [swapper] 1", Ok(None)),
        ("X   W 223490 / 223494 [x]", Ok(None)),
        ("m   N cfq697 slice expired t=0", Ok(None)),
        ("Q   W 223490 + 8", Err(Fields { want: 11, got: 10 })),
        ("Q   W 223490 +", Err(Fields { want: 11, got: 9 })),
        ("Q   W", Err(Fields { want: 11, got: 7 })),
        ("Q", Err(Fields { want: 7, got: 6 })),
        ("Q   W 22349x + 8 [x]", Err(Number("sector"))),
        ("Q   W 1 + 8388608 [x]", Err(Number("sectors"))),
        ("Q   W 1 + 0 [x]", Err(ZeroSize)),
        ("Q   W 36028797018963968 + 1 [x]", Err(PastEnd)),
        ("?   W 1 + 8 [x]", Err(Operation)),
        ("Q   w 1 + 8 [x]", Err(Operation)),
    ];
    for (end, expected) in cases {
        assert_eq!(
            parse(&format!("  8,0    3       11     1.000002345   697  {end}")),
            expected,
            "{end}"
        );
    }
}

#[test]
fn the_head_of_a_line_is_checked() {
    let cases = [
        ("8 3 1 0.000000000 697", "device"),
        ("8,x 3 1 0.000000000 697", "device"),
        ("8,0 -3 1 0.000000000 697", "cpu"),
        ("8,0 3 s 0.000000000 697", "seq"),
        ("8,0 3 1 0.00 697", "time"),
        ("8,0 3 1 18446744074.000000000 697", "time"),
        ("8,0 3 1 0.000000000 4294967296", "pid"),
    ];
    for (head, field) in cases {
        assert_eq!(parse(&format!("{head} Q W 1 + 8 [x]")), Err(Problem::Number(field)), "{head}");
    }
}

#[test]
fn what_surrounds_the_events_is_known() {
    let discarded = "discarded traces containing low-level device driver specific data";
    for line in ["", "Input file a added", "cc1 plus (697)", "sh (697, ...)", discarded] {
        assert!(is_beside(line) && !is_summary(line), "{line}");
    }
    for line in ["CPU0 (sda):", "Total (8,0):", " Reads Queued:    60, 240KiB\t"] {
        assert!(is_summary(line) && !is_beside(line), "{line}");
    }
    assert!(!is_summary("CPU (sda)"));
    for (line, expected) in [
        ("Input file sda.blktrace.0 added", true),
        ("8,0 3 1 0.000000000 697 Q W damaged", true),
        ("8,0 3 1 0.000000000 697 Q", false),
        ("sh (697)", false),
        ("", false),
    ] {
        assert_eq!(recognise(line), expected, "{line}");
    }
}
