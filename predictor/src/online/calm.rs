//! Volumes of which all that is read lies on fast devices: there is little to foresee.
#![forbid(unsafe_code)]

/// Places; volumes with the same one are calm together only.
const PLACES: usize = 256;
/// Crossings without meeting anything cold after which a volume is calm.
const CALM: u16 = 256;
/// One crossing in so many of a calm volume is ranked all the same: a walk may come to what is
/// cold.
const RANKED: u16 = 32;

/// Crossings of each volume since a read of it has met anything cold.
pub(super) struct Calm {
    crossings: [u16; PLACES],
}

impl Calm {
    pub fn new() -> Calm {
        Calm { crossings: [0; PLACES] }
    }

    fn at(&mut self, volume: u32) -> &mut u16 {
        &mut self.crossings[volume as usize % PLACES]
    }

    /// Whether a crossing is one to rank at.
    pub fn crosses(&mut self, volume: u32) -> bool {
        let crossings = self.at(volume);
        *crossings += 1;
        if *crossings == CALM + RANKED {
            *crossings = CALM;
        }
        *crossings <= CALM
    }

    /// A read has met something cold.
    pub fn disturb(&mut self, volume: u32) {
        *self.at(volume) = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_calm_volume_is_looked_at_now_and_then_until_something_cold_is_met() {
        let mut calm = Calm::new();
        assert!((0..CALM).all(|_| calm.crosses(3)));
        let ranked = (0..800).filter(|_| calm.crosses(3)).count();
        assert_eq!(ranked, 25);
        assert!(calm.crosses(4), "another one");
        calm.disturb(3);
        assert!((0..CALM).all(|_| calm.crosses(3)));
    }
}
