"""The engines that ship: scripted, vLLM."""
