"""Every reader of what strangers write, fed by atheris with what it invents."""
