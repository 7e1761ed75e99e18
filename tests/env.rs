//! Options from variables of the environment. Each fact runs in a separate process, since
//! variables belong to the whole process.

use std::env;
use std::error::Error;
use std::process::Command;
use tierpool::{Builder, EnvError, Pool};

/// The variable by which a child process knows that it is one.
const CHILD: &str = "TIERPOOL_TEST_CHILD";

/// Runs the test `name` of this file once more, in a process with these variables. Returns `true` in that
/// process.
fn with_variables(name: &str, variables: &[(&str, &str)]) -> bool {
    if env::var_os(CHILD).is_some() {
        return true;
    }
    let mut child = Command::new(env::current_exe().unwrap());
    child.args(["--exact", name, "--nocapture"]).env(CHILD, "1");
    let output = child.envs(variables.iter().copied()).output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(
        output.status.success() && said.contains("1 passed"),
        "{said}"
    );
    false
}

#[test]
#[cfg_attr(miri, ignore = "starts a process")]
fn the_variables_of_the_process_are_read() -> Result<(), Box<dyn Error>> {
    let variables = [
        ("APP_POOL_MAX_SIZE", "64 KiB"),
        ("APP_POOL_RETAIN_BYTES", "1 MiB"),
        ("APP_POOL_KEEP_IDLE", "16 KiB: 2"),
        ("APP_PORT", "80"),
    ];
    if !with_variables("the_variables_of_the_process_are_read", &variables) {
        return Ok(());
    }
    let pool = Builder::from_env("APP_POOL_")?.build()?;
    assert_eq!(pool.classes().last(), Some(&(64 << 10)));
    let stats = pool.stats();
    assert_eq!(
        (stats.budget_bytes, stats.total.retained_bytes),
        (1 << 20, 32 << 10)
    );

    let program = Pool::builder().max_size(4096).min_size(1024);
    let pool = program.with_env("APP_POOL_")?.build()?;
    assert_eq!(pool.classes()[0], 1024);
    assert_eq!(pool.classes().last(), Some(&(64 << 10)));

    assert!(Builder::from_env("OTHER_POOL_")?.build().is_ok());
    Ok(())
}

#[test]
#[cfg_attr(miri, ignore = "starts a process")]
fn a_misspelt_variable_is_an_error() {
    if !with_variables(
        "a_misspelt_variable_is_an_error",
        &[("APP_POOL_MAXSIZE", "64 KiB")],
    ) {
        return;
    }
    let error = Builder::from_env("APP_POOL_").unwrap_err();
    assert!(matches!(&error, EnvError::Unknown { variable, .. } if variable == "APP_POOL_MAXSIZE"));
    assert!(error.source().is_none());
}

#[test]
#[cfg_attr(miri, ignore = "starts a process")]
fn a_value_that_cannot_be_read_is_an_error() {
    if !with_variables(
        "a_value_that_cannot_be_read_is_an_error",
        &[("APP_POOL_MAX_SIZE", "64 KB")],
    ) {
        return;
    }
    let error = Builder::from_env("APP_POOL_").unwrap_err();
    assert_eq!(
        error.to_string(),
        "APP_POOL_MAX_SIZE (\"64 KB\") has no known unit; use a size such as 65536, \"64 KiB\" or \
         \"1.5 MiB\""
    );
}
