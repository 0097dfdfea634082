//! The guest kernel's trace: block requests in flight, and marks, in one order.
//!
//! The trace's clock is its counter, so an event's number is its position in
//! the one order in which all cores saw requests begin and end. The contents of
//! a device's writes are in its [`WriteLog`]; both meet by range: two writes of
//! one range are never in flight together, so their order is the same in both.

use std::collections::HashMap;
use std::path::Path;

use crate::PowerError;
use crate::mark::Mark;
use crate::write_log::WriteLog;

/// A moment: the number of an event.
pub type Moment = u64;

/// A write to a device.
#[derive(Clone, Debug)]
pub struct Write {
    /// First sector.
    pub sector: u64,
    /// Sectors.
    pub sectors: u64,
    /// Durable when it ended.
    pub fua: bool,
    /// When the device got it.
    pub begun: Moment,
    /// When the device said that it was done.
    pub ended: Option<Moment>,
    /// Place of its bytes in the log; a write that never ended may have none.
    pub bytes: Option<u64>,
}

/// A flush of a device.
#[derive(Clone, Copy, Debug)]
pub struct Flush {
    /// When the device got it.
    pub begun: Moment,
    /// When the device said that it was done.
    pub ended: Moment,
}

/// What one device was asked to do.
#[derive(Debug, Default)]
pub struct Device {
    /// In the order in which they began.
    pub writes: Vec<Write>,
    /// In the order in which they ended.
    pub flushes: Vec<Flush>,
}

/// A recorded run.
#[derive(Debug, Default)]
pub struct Trace {
    /// In the order of the pool.
    pub devices: Vec<Device>,
    /// In order.
    pub marks: Vec<(Moment, Mark)>,
    /// One after the last event.
    pub end: Moment,
}

/// A block request of the trace.
struct Request<'a> {
    number: (u32, u32),
    kind: &'a str,
    sector: u64,
    sectors: u64,
}

impl<'a> Request<'a> {
    /// `259,2 WFS 4096 () 72 + 8 [comm]`, or without the bytes at the end of a request.
    fn parse(text: &'a str) -> Option<Self> {
        let mut words = text.split_whitespace();
        let (major, minor) = words.next()?.split_once(',')?;
        let number = (major.parse().ok()?, minor.parse().ok()?);
        let kind = words.next()?;
        let mut words = words.skip_while(|word| *word != "()").skip(1);
        let sector = words.next()?.parse().ok()?;
        let sectors = words.nth(1)?.parse().ok()?;
        Some(Request { number, kind, sector, sectors })
    }

    fn is_flush(&self) -> bool {
        self.kind.starts_with("FF")
    }
}

impl Trace {
    /// Reads the trace and finds the bytes of its writes in the devices' logs.
    ///
    /// # Errors
    /// If the trace is not whole, or does not fit the logs.
    pub fn read(path: &Path, logs: &mut [WriteLog]) -> Result<Trace, PowerError> {
        let wrong = |why| PowerError::Record { file: path.display().to_string(), why };
        let text = std::fs::read_to_string(path).map_err(crate::system("reading the trace"))?;
        let mut trace = Trace::default();
        let mut numbers = HashMap::new();
        let mut flushing: HashMap<usize, Moment> = HashMap::new();
        for line in text.lines() {
            if let Some(counts) = line.strip_prefix("# entries-in-buffer/entries-written: ") {
                let (kept, seen) = counts
                    .split_whitespace()
                    .next()
                    .unwrap_or("")
                    .split_once('/')
                    .ok_or_else(|| wrong(format!("not understood: {line}")))?;
                if kept != seen {
                    return Err(wrong(format!("events were lost: {kept} of {seen} are there")));
                }
            }
            let Some((now, event, detail)) = split(line) else { continue };
            trace.end = now + 1;
            if event == "tracing_mark_write" {
                let Some(mark) = Mark::parse(detail) else { continue };
                if let Mark::Device { index, number } = mark {
                    numbers.insert(number, index);
                    trace.devices.resize_with(trace.devices.len().max(index + 1), Device::default);
                }
                trace.marks.push((now, mark));
                continue;
            }
            let request = Request::parse(detail);
            let request = request.ok_or_else(|| wrong(format!("not understood: {line}")))?;
            let Some(&index) = numbers.get(&request.number) else { continue };
            let device = &mut trace.devices[index];
            let ok = match (event, request.is_flush()) {
                ("block_rq_issue", true) => flushing.insert(index, now).is_none(),
                ("block_rq_complete", true) => flushing
                    .remove(&index)
                    .map(|begun| device.flushes.push(Flush { begun, ended: now }))
                    .is_some(),
                ("block_rq_issue", false) => {
                    let log = &mut logs[index];
                    device.begin(&request, now, || log.take(request.sector, request.sectors))
                }
                // The flush's own request, without sectors, ends with it.
                ("block_rq_complete", false) => request.sectors == 0 || device.end(&request, now),
                _ => continue,
            };
            if !ok || !(request.kind.contains('W') || request.is_flush()) {
                return Err(wrong(format!("out of order, or unknown: {line}")));
            }
        }
        trace.check(logs).map_err(wrong)?;
        Ok(trace)
    }

    /// Every write that ended is in its log, and nothing else is.
    fn check(&self, logs: &[WriteLog]) -> Result<(), String> {
        if self.devices.len() != logs.len() || logs.is_empty() {
            return Err(format!("{} devices, {} logs", self.devices.len(), logs.len()));
        }
        for (index, (device, log)) in self.devices.iter().zip(logs).enumerate() {
            let lost = device.writes.iter().find(|w| w.ended.is_some() && w.bytes.is_none());
            if let Some(write) = lost {
                return Err(format!("device {index}: {write:?} is not in its log"));
            }
            if !log.is_empty() {
                return Err(format!("device {index}: its log holds writes that nobody made"));
            }
        }
        Ok(())
    }
}

impl Device {
    /// False if the range is being written already.
    fn begin(
        &mut self,
        request: &Request<'_>,
        now: Moment,
        log: impl FnOnce() -> Option<u64>,
    ) -> bool {
        let Request { sector, sectors, .. } = *request;
        // The operation, then its flags: `WFS` is a synchronous write with FUA.
        let fua = request.kind.split_once('W').is_some_and(|(_, flags)| flags.starts_with('F'));
        let meets = |w: &Write| w.sector < sector + sectors && sector < w.sector + w.sectors;
        if self.in_flight().any(meets) {
            return false;
        }
        self.writes.push(Write { sector, sectors, fua, begun: now, ended: None, bytes: log() });
        true
    }

    fn end(&mut self, request: &Request<'_>, now: Moment) -> bool {
        let same = |w: &&mut Write| (w.sector, w.sectors) == (request.sector, request.sectors);
        let mut open = self.writes.iter_mut().rev().take(IN_FLIGHT).filter(|w| w.ended.is_none());
        open.find(same).map(|write| write.ended = Some(now)).is_some()
    }

    fn in_flight(&self) -> impl Iterator<Item = &Write> {
        self.writes.iter().rev().take(IN_FLIGHT).filter(|write| write.ended.is_none())
    }
}

/// More writes than begin while one is in flight.
const IN_FLIGHT: usize = 4096;

/// Number, name and detail of an event's line.
fn split(line: &str) -> Option<(Moment, &str, &str)> {
    if line.starts_with('#') {
        return None;
    }
    let names = ["block_rq_issue", "block_rq_complete", "tracing_mark_write"];
    let (at, name) =
        names.iter().find_map(|name| Some((line.find(&format!(": {name}: "))?, name)))?;
    let now = line[..at].split_whitespace().next_back()?.parse().ok()?;
    Some((now, name, &line[at + name.len() + 4..]))
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEAD: &str = "# entries-in-buffer/entries-written: 9/9   #P:2\n";

    fn line(now: u64, event: &str) -> String {
        format!("    kworker/0:1H-60      [000] d.h1.  {now}: {event}\n")
    }

    fn read(text: &str, log: &[(u64, u64)]) -> Result<Trace, PowerError> {
        let dir = tempfile::tempdir().unwrap();
        let (path, log_path) = (dir.path().join("trace"), dir.path().join("log"));
        std::fs::write(&path, text).unwrap();
        let word = |words: [u64; 4]| {
            let mut sector: Vec<u8> = words.iter().flat_map(|w| w.to_le_bytes()).collect();
            sector.resize(512, 0);
            sector
        };
        let mut bytes = word([0x006a_7366_7773_6872, 1, 0, 512]);
        for (sector, sectors) in log {
            bytes.extend(word([*sector, *sectors, 0, 0]));
            bytes.resize(bytes.len() + usize::try_from(*sectors).unwrap() * 512, 1);
        }
        std::fs::write(&log_path, bytes).unwrap();
        Trace::read(&path, &mut [WriteLog::open(&log_path).unwrap()])
    }

    fn example() -> String {
        HEAD.to_owned()
            + &line(1, "tracing_mark_write: power device 0 259 2")
            + &line(2, "block_rq_issue: 259,2 WS 4096 () 8 + 8 [tessera]")
            + &line(3, "block_rq_issue: 259,7 WS 4096 () 8 + 8 [tar]")
            + &line(4, "block_rq_complete: 259,2 WS () 8 + 8 [0]")
            + &line(5, "block_rq_issue: 259,2 FF 0 () 0 + 0 [kworker/1:1H]")
            + &line(6, "block_rq_complete: 259,2 FF () 18446744073709551615 + 0 [0]")
            + &line(7, "block_rq_complete: 259,2 WS () 0 + 0 [0]")
            + &line(8, "block_rq_issue: 259,2 WFS 4096 () 16 + 8 [tessera]")
            + &line(9, "tracing_mark_write: power ready")
    }

    #[test]
    fn requests_and_marks_are_put_together() {
        let trace = read(&example(), &[(8, 8), (16, 8)]).unwrap();
        let device = &trace.devices[0];
        assert_eq!((device.writes.len(), device.flushes.len(), trace.end), (2, 1, 10));
        let [plain, fua] = &device.writes[..] else { unreachable!() };
        assert_eq!((plain.begun, plain.ended, plain.fua), (2, Some(4), false));
        assert_eq!((fua.begun, fua.ended, fua.fua), (8, None, true));
        assert_eq!((device.flushes[0].begun, device.flushes[0].ended), (5, 6));
        assert_eq!(trace.marks[1], (9, Mark::Ready));
    }

    #[test]
    fn a_record_that_is_not_whole_is_refused() {
        assert!(read(&example().replace("9/9", "9/12"), &[(8, 8)]).is_err());
        assert!(read(&example(), &[(16, 8)]).is_err(), "a completed write is not logged");
        assert!(read(&example(), &[(8, 8), (64, 8)]).is_err(), "more is logged than was written");
        let overlap = example() + &line(10, "block_rq_issue: 259,2 WS 512 () 16 + 1 [tessera]");
        assert!(read(&overlap, &[(8, 8)]).is_err());
    }
}
