//! Every field of every header, right and wrong.

use zerocopy::IntoBytes;

use super::*;
use crate::Status;

const NONE: Digests = Digests { header: false, data: false };
const BOTH: Digests = Digests { header: true, data: true };

/// Checks a whole header; its digest is appended if it says so.
fn check(header: &[u8], receiver: Receiver, digests: Digests) -> Result<(Shape, Received), Fatal> {
    let stage = match header[0] {
        kind::IC_REQ | kind::IC_RESP => Stage::Initial,
        _ => Stage::Running,
    };
    let common = CommonHeader::read_from_prefix(header).unwrap().0;
    let shape = shape(&common, receiver, stage, digests)?;
    let mut bytes = header.to_vec();
    bytes.extend(crc32c(header).to_le_bytes());
    let received = super::header(&bytes, &shape)?;
    Ok((shape, received))
}

/// A good header of every type and its receiver.
fn good(digests: Digests) -> Vec<(Receiver, Vec<u8>)> {
    let Digests { header, data } = digests;
    let command = CapsuleCmd::new(SubmissionEntry::default(), header, data, 0);
    let capsule = CapsuleCmd::new(SubmissionEntry::default(), header, data, 8192);
    let completion = CapsuleResp::new(CompletionEntry::new(1, 2, Status::SUCCESS), header);
    let h2c = Data::new(kind::H2C_DATA, 1, 2, 0, 512, false).with_digests(header, data);
    let c2h = Data::new(kind::C2H_DATA, 1, 0, 0, 512, true).with_digests(header, data);
    let (controller, host) = (Receiver::Controller, Receiver::Host);
    vec![
        (controller, IcReq::new(3).as_bytes().to_vec()),
        (controller, TermReq::new(kind::H2C_TERM_REQ, 1, 0, 24).as_bytes().to_vec()),
        (controller, command.as_bytes().to_vec()),
        (controller, capsule.as_bytes().to_vec()),
        (controller, h2c.as_bytes().to_vec()),
        (host, IcResp::new(3, 4096).as_bytes().to_vec()),
        (host, TermReq::new(kind::C2H_TERM_REQ, 6, 0, 128).as_bytes().to_vec()),
        (host, completion.as_bytes().to_vec()),
        (host, c2h.as_bytes().to_vec()),
        (host, R2t::new(1, 2, 0, 512, header).as_bytes().to_vec()),
    ]
}

#[test]
fn good_headers_of_every_type_pass() {
    for digests in [NONE, BOTH, Digests { header: true, data: false }] {
        for (receiver, header) in good(digests) {
            let (shape, _) = check(&header, receiver, digests).expect("a good header");
            let digest = digests.header && shape.header_bytes > usize::from(header[2]);
            assert_eq!(digest, header[1] & flags::HDGST != 0);
            assert_eq!(shape.data_digest, header[1] & flags::DDGST != 0);
            let plen = u32::from_le_bytes(header[4..8].try_into().unwrap()) as usize;
            let tail = if shape.data_digest { 4 } else { 0 };
            assert_eq!(plen, shape.data_start + shape.data_bytes as usize + tail);
        }
    }
}

#[test]
fn a_type_of_the_other_direction_or_of_none_is_refused() {
    for (receiver, mut header) in good(NONE) {
        let other = match receiver {
            Receiver::Controller => Receiver::Host,
            Receiver::Host => Receiver::Controller,
        };
        assert_eq!(check(&header, other, NONE).unwrap_err(), Fatal::field(0));
        for kind in [0x08, 0x0a, 0x7f, 0xff] {
            header[0] = kind;
            assert_eq!(check(&header, receiver, NONE).unwrap_err(), Fatal::field(0));
        }
    }
}

#[test]
fn the_first_pdu_comes_first_and_once() {
    for (receiver, header) in good(NONE) {
        let common = CommonHeader::read_from_prefix(&header).unwrap().0;
        let first = matches!(header[0], kind::IC_REQ | kind::IC_RESP);
        let wrong = if first { Stage::Running } else { Stage::Initial };
        let got = shape(&common, receiver, wrong, NONE);
        if matches!(header[0], kind::H2C_TERM_REQ | kind::C2H_TERM_REQ) {
            assert!(got.is_ok(), "a peer may give up at any time");
        } else {
            assert_eq!(got.unwrap_err(), Fatal::SEQUENCE);
        }
    }
}

#[test]
fn lengths_and_offsets_are_those_of_the_type() {
    for (receiver, header) in good(NONE) {
        let with = |at: usize, value: u8| {
            let mut header = header.clone();
            header[at] = value;
            check(&header, receiver, NONE).map(|(shape, _)| shape)
        };
        for hlen in [0, 8, header[2] - 1, header[2] + 1, 255] {
            assert_eq!(with(2, hlen).unwrap_err(), Fatal::field(2), "{header:?}");
        }
        let mut short = header.clone();
        short[4..8].copy_from_slice(&u32::from(header[2] - 1).to_le_bytes());
        assert_eq!(check(&short, receiver, NONE).unwrap_err(), Fatal::field(4));
        let data = matches!(header[0], kind::CAPSULE_CMD | kind::H2C_DATA | kind::C2H_DATA);
        if data && header[3] > 0 {
            for pdo in [0, header[2] - 4, header[2] + 1, header[2] + 2] {
                assert_eq!(with(3, pdo).unwrap_err(), Fatal::field(3));
            }
        }
        let mut long = header.clone();
        long[4..8].copy_from_slice(&153_u32.to_le_bytes());
        let got = check(&long, receiver, NONE);
        if header[0] == kind::CAPSULE_CMD && header[3] > 0 {
            assert!(got.is_ok(), "how much may stand in a capsule is the queue's to know");
            continue;
        }
        let error = got.unwrap_err();
        match header[0] {
            // More data than DATAL says.
            kind::H2C_DATA | kind::C2H_DATA => assert_eq!(error, Fatal::field(16)),
            // No data offset.
            kind::CAPSULE_CMD => assert_eq!(error, Fatal::field(3)),
            _ => assert_eq!(error, Fatal::field(4)),
        }
    }
}

#[test]
fn padding_before_the_data_is_passed_over() {
    let mut header = CapsuleCmd::new(SubmissionEntry::default(), false, false, 512);
    header.common.pdo = 128;
    header.common.plen = (128 + 512).into();
    let (shape, _) = check(header.as_bytes(), Receiver::Controller, NONE).unwrap();
    assert_eq!((shape.header_bytes, shape.data_start, shape.data_bytes), (72, 128, 512));
    header.common.plen = 128.into();
    let error = check(header.as_bytes(), Receiver::Controller, NONE).unwrap_err();
    assert_eq!(error, Fatal::field(4));
}

#[test]
fn digest_flags_are_those_that_were_agreed() {
    for (receiver, header) in good(NONE) {
        let digests = !matches!(header[0], 0..=3);
        let got = check(&header, receiver, Digests { header: true, data: false });
        assert_eq!(got.err(), digests.then_some(Fatal::field(1)));
        let mut flagged = header.clone();
        flagged[1] |= flags::HDGST;
        assert_eq!(check(&flagged, receiver, NONE).unwrap_err(), Fatal::field(1));
        if digests && header[3] > 0 {
            let got = check(&header, receiver, Digests { header: false, data: true });
            assert_eq!(got.unwrap_err(), Fatal::field(1));
            flagged[1] = header[1] | flags::DDGST;
            assert_eq!(check(&flagged, receiver, NONE).unwrap_err(), Fatal::field(1));
        }
    }
}

#[test]
fn one_wrong_bit_of_a_header_is_noticed_by_its_digest() {
    for (receiver, header) in good(BOTH) {
        let common = CommonHeader::read_from_prefix(&header).unwrap().0;
        if common.flags & flags::HDGST == 0 {
            continue;
        }
        let shape = shape(&common, receiver, Stage::Running, BOTH).unwrap();
        let mut bytes = header.clone();
        bytes.extend(crc32c(&header).to_le_bytes());
        for at in 8..bytes.len() {
            let mut bytes = bytes.clone();
            bytes[at] ^= 0x10;
            assert_eq!(super::header(&bytes, &shape).unwrap_err(), Fatal::HEADER_DIGEST, "{at}");
        }
    }
}

#[test]
fn fields_behind_the_common_header_are_checked() {
    let (controller, host) = (Receiver::Controller, Receiver::Host);
    let error = |header: &[u8], receiver| check(header, receiver, NONE).unwrap_err();
    let mut req = IcReq::new(0);
    req.pfv = 1.into();
    assert_eq!(error(req.as_bytes(), controller), Fatal::unsupported(8));
    let mut req = IcReq::new(0);
    req.hpda = 32;
    assert_eq!(error(req.as_bytes(), controller), Fatal::field(10));
    let mut resp = IcResp::new(0, 4096);
    resp.pfv = 1.into();
    assert_eq!(error(resp.as_bytes(), host), Fatal::unsupported(8));
    let mut resp = IcResp::new(0, 4096);
    resp.cpda = 32;
    assert_eq!(error(resp.as_bytes(), host), Fatal::field(10));
    for maxh2cdata in [0, 4095, 4098] {
        assert_eq!(error(IcResp::new(0, maxh2cdata).as_bytes(), host), Fatal::field(12));
    }
    for fes in [0, 7, 0xffff] {
        let req = TermReq::new(kind::H2C_TERM_REQ, fes, 0, 0);
        assert_eq!(error(req.as_bytes(), controller), Fatal::field(8));
    }
    assert_eq!(error(R2t::new(1, 2, 0, 0, false).as_bytes(), host), Fatal::field(16));
    let empty = Data::new(kind::H2C_DATA, 1, 2, 0, 0, true);
    assert_eq!(error(empty.as_bytes(), controller), Fatal::field(4));
    for datal in [0, 511, 513] {
        let mut data = Data::new(kind::H2C_DATA, 1, 2, 0, 512, true);
        data.datal = datal.into();
        assert_eq!(error(data.as_bytes(), controller), Fatal::field(16));
    }
    let mut data = Data::new(kind::C2H_DATA, 1, 0, 0, 512, false);
    data.common.flags |= flags::SUCCESS;
    assert_eq!(error(data.as_bytes(), host), Fatal::field(1));
    data.common.flags |= flags::LAST;
    assert!(check(data.as_bytes(), host, NONE).is_ok());
    let mut data = Data::new(kind::H2C_DATA, 1, 2, 0, 512, true);
    data.common.flags |= flags::SUCCESS;
    assert_eq!(error(data.as_bytes(), controller), Fatal::field(1));
}
