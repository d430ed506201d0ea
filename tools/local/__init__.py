"""The local cloud: environments, emulator, build, deploy, bootstrap, and the contract file they leave."""
