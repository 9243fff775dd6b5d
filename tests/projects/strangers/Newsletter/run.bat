@echo off
call .venv\Scripts\activate
python crew.py
pause
