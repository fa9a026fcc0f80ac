//! balena-migrate: moves a running Linux device to balenaOS.
