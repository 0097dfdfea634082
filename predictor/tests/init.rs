//! `init` in a process of its own: it needs one that has no threads yet.

fn main() {
    const VARIABLE: &str = "RAYON_NUM_THREADS";
    let ours = std::env::var_os(VARIABLE).is_none();
    assert!(predictor::init(), "no thread runs yet");
    if ours {
        assert_eq!(std::env::var(VARIABLE).as_deref(), Ok("1"));
    }
    // Later calls, also beside other threads, find it set.
    let later = std::thread::spawn(predictor::init).join();
    assert!(matches!(later, Ok(true)));
    println!("init: ok");
}
